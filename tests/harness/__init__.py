"""What end-to-end tests share: the real `serve`, scripted upstreams on raw sockets, raw clients."""
