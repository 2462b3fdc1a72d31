/* Load generator: one thread, epoll, no dependencies; prints one JSON object.
 *
 *   cc -O2 -o load load.c                             (x86: -msse4.2 makes its checksums cheaper)
 *   ./load rps    -p PORT -c 64  -t 4                 closed loop, keep-alive
 *   ./load open   -p PORT -c 64  -t 5 -r 200          open loop: latency counts from the moment
 *                                                     the request was due (no coordinated omission)
 *   ./load stream -p PORT -c 100 -n 200 -i 10000 -s 1 C streams, one round, starts spread over one
 *                                                     interval; -s 1 stamps chunks, so that each
 *                                                     chunk's one-way delay is measured too
 *                                                     (-t is then a time limit)
 *   ./load flat   -p PORT -c 16  -n 2000 -t 4         flat-out streams, reissued for t seconds
 *   ./load idle   -p PORT -c 1000 -t 8                open streams that stay silent after one chunk
 *   ./load spin   -t 60                               burn idle time of a core (SCHED_IDLE) so that it
 *                                                     does not halt, which makes latencies repeatable
 * common: -m MODEL prefix (default "mock"), -P PATH, -H 'Name: value' (repeatable), -w warm-up seconds
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#ifdef __SSE4_2__
#include <nmmintrin.h>
#endif
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CLOSED, IDLE, BUSY };
typedef struct conn {
    int fd, state, in_body, chunked, close_after, cstate, status, sse;
    uint64_t start, first, last, csize; int64_t left;
    char head[16384]; size_t hlen;
    char ev[8192]; size_t elen; int nl;
    uint32_t crc; uint64_t bytes; uint32_t events, done_seen;
} conn;

typedef struct { uint32_t *v; size_t n, cap; } samples;
static void add(samples *s, uint64_t ns) {
    if (s->n == s->cap) s->v = realloc(s->v, sizeof *s->v * (s->cap = s->cap ? s->cap * 2 : 65536));
    uint64_t u = ns / 100; s->v[s->n++] = u > 0xffffffffu ? 0xffffffffu : (uint32_t)u;   /* units of 0.1 us */
}
static int cmp(const void *a, const void *b) { uint32_t x = *(uint32_t *)a, y = *(uint32_t *)b; return x < y ? -1 : x > y; }
static void show(const char *name, samples *s) {
    if (s->n) qsort(s->v, s->n, sizeof *s->v, cmp);
#define Q(q) (s->n ? s->v[(size_t)((s->n - 1) * (q))] / 10.0 : -1.0)
    printf(", \"%s_us\": {\"n\": %zu, \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"max\": %.1f}",
           name, s->n, Q(.5), Q(.9), Q(.99), Q(.999), Q(1.0));
}

static int ep, port, C = 64, N = 200, I = 10000, S, mode_stream, measuring, reissue;
static double T = 4, R = 200, W = 0;
static const char *model = "mock", *path = "/v1/chat/completions", *mode;
static char req[65536]; static size_t req_len;
static conn *cs; static int idle_list[20000], idle_n;
static uint64_t requests, errors, non200, reconnects, bytes, events, mismatches, finished, started;
static samples lat, ttfb, ttft, gap, oneway;
static uint32_t want_crc; static uint64_t want_bytes; static int have_want;

static volatile sig_atomic_t quit;
static void on_term(int s) { (void)s; quit = 1; }

static uint64_t now_ns(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec; }

/* a checksum, to compare bodies of one run with each other: which one does not matter */
#ifndef __SSE4_2__
static uint32_t crc(uint32_t c, const char *p, size_t n) {
    while (n--) c = (c ^ (unsigned char)*p++) * 16777619u;                                  /* FNV-1a */
    return c;
}
#else
static uint32_t crc(uint32_t c, const char *p, size_t n) {
    uint64_t x = c;
    while (n >= 8) { uint64_t w; memcpy(&w, p, 8); x = _mm_crc32_u64(x, w); p += 8; n -= 8; }
    while (n--) x = _mm_crc32_u8((uint32_t)x, *p++);
    return (uint32_t)x;
}
#endif

static void dial(conn *c) {
    int one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (void *)&a, sizeof a)) { perror("connect"); exit(2); }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
    c->state = IDLE;
}

static void issue(conn *c, uint64_t due) {
    if (c->state == CLOSED) dial(c);
    c->state = BUSY; c->start = due; c->first = c->last = 0; c->in_body = 0; c->hlen = 0; c->elen = 0; c->nl = 0;
    c->crc = 0; c->bytes = 0; c->events = 0; c->done_seen = 0; c->sse = 0; c->status = 0;
    started++;
    if (send(c->fd, req, req_len, MSG_NOSIGNAL) != (ssize_t)req_len) { errors++; }
}

static void one_event(conn *c, uint64_t now) {
    if (c->elen < 6 || memcmp(c->ev, "data:", 5)) { c->elen = 0; return; }   /* comments, pings */
    if (memmem(c->ev, c->elen < 24 ? c->elen : 24, "[DONE]", 6)) { c->done_seen = 1; c->elen = 0; return; }
    c->events++;
    if (measuring) {
        events++;
        if (!c->first) { c->first = now; add(&ttft, now - c->start); }
        else add(&gap, now - c->last);
        if (S) {
            char *f = memmem(c->ev, c->elen, "\"fp_", 4);
            if (f) { uint64_t ts = strtoull(f + 4, NULL, 10); if (ts && ts <= now) add(&oneway, now - ts); memset(f + 4, '0', 19); }
        }
    }
    c->last = now;
    if (S) c->crc = crc(c->crc, c->ev, c->elen);
    c->elen = 0;
}

static void body(conn *c, const char *p, size_t n, uint64_t now) {
    c->bytes += n; if (measuring) bytes += n;
    if (!mode_stream) { c->crc = crc(c->crc, p, n); return; }
    if (!S) c->crc = crc(c->crc, p, n);
    /* split into events at blank lines */
    while (n) {
        const char *e = memchr(p, '\n', n); size_t k = e ? (size_t)(e - p) + 1 : n;
        size_t room = sizeof c->ev - c->elen, m = k < room ? k : room;
        if (k == 1 && e && c->nl) { if (c->elen < sizeof c->ev) c->ev[c->elen++] = '\n'; one_event(c, now); c->nl = 0; }
        else { memcpy(c->ev + c->elen, p, m); c->elen += m; c->nl = e != NULL; }
        p += k; n -= k;
    }
}

static void drop(conn *c) { close(c->fd); c->state = CLOSED; }

static void complete(conn *c, uint64_t now) {
    int ok = c->status == 200;
    finished++;
    if (!ok) { non200++; if (non200 == 1) fprintf(stderr, "first non-200: %.*s\n", (int)(c->hlen > 600 ? 600 : c->hlen), c->head); }
    if (measuring) { requests++; if (!mode_stream) add(&lat, now - c->start); }
    if (ok && (!mode_stream || c->done_seen)) {
        if (!have_want) { have_want = 1; want_crc = c->crc; want_bytes = c->bytes; }
        else if (c->crc != want_crc || c->bytes != want_bytes) mismatches++;
        if (mode_stream && (int)c->events != N) errors++;
    } else if (ok) errors++;
    if (c->close_after) { drop(c); reconnects++; } else c->state = IDLE;
    if (reissue) issue(c, now); else idle_list[idle_n++] = c - cs;
}

/* feed raw bytes; returns -1 on protocol error */
static int feed(conn *c, const char *p, size_t n, uint64_t now) {
    while (n && c->state == BUSY) {
        if (!c->in_body) {
            if (!c->hlen && !mode_stream && measuring) add(&ttfb, now - c->start);   /* a head's first byte */
            size_t k = n < sizeof c->head - 1 - c->hlen ? n : sizeof c->head - 1 - c->hlen, old = c->hlen;
            if (!k) return -1;
            memcpy(c->head + c->hlen, p, k); c->hlen += k; c->head[c->hlen] = 0;
            size_t from = old > 3 ? old - 3 : 0;
            char *e = memmem(c->head + from, c->hlen - from, "\r\n\r\n", 4);
            if (!e) return 0;
            size_t used = e + 4 - c->head - old; p += used; n -= used;
            c->hlen = e + 4 - c->head; *e = 0;
            c->status = c->hlen > 12 ? atoi(c->head + 9) : 0;
            if (c->status == 100) { c->hlen = 0; continue; }
            c->chunked = 0; c->left = -1; c->close_after = 0; c->in_body = 1; c->cstate = 0; c->csize = 0;
            for (char *h = strstr(c->head, "\r\n"); h; h = strstr(h + 2, "\r\n")) {
                char *l = h + 2;
                if (!strncasecmp(l, "content-length:", 15)) c->left = atoll(l + 15);
                else if (!strncasecmp(l, "transfer-encoding:", 18)) c->chunked = strcasestr(l + 18, "chunked") != NULL;
                else if (!strncasecmp(l, "connection:", 11)) { char *v = l + 11; while (*v == ' ') v++; c->close_after = !strncasecmp(v, "close", 5); }
            }
            if (!c->chunked && c->left == 0) complete(c, now);
            continue;
        }
        if (!c->chunked) {
            size_t k = c->left >= 0 && (uint64_t)c->left < n ? (size_t)c->left : n;
            body(c, p, k, now); p += k; n -= k;
            if (c->left >= 0 && !(c->left -= k)) complete(c, now);
            continue;
        }
        switch (c->cstate) {
        case 0: {                                          /* chunk size line */
            char ch = *p++; n--;
            if (ch == '\n') c->cstate = c->csize ? 2 : 4;
            else if (ch == ';' || ch == '\r') c->cstate = 1;
            else { int d = ch <= '9' ? ch - '0' : (ch | 32) - 'a' + 10; if (d < 0 || d > 15) return -1; c->csize = c->csize * 16 + d; }
            break; }
        case 1: { char ch = *p++; n--; if (ch == '\n') c->cstate = c->csize ? 2 : 4; break; }
        case 2: {
            size_t k = c->csize < n ? c->csize : n;
            body(c, p, k, now); p += k; n -= k; c->csize -= k;
            if (!c->csize) c->cstate = 3;
            break; }
        case 3: { char ch = *p++; n--; if (ch == '\n') c->cstate = 0; break; }
        case 4: {                                          /* trailer: blank line ends */
            char ch = *p++; n--; if (ch == '\n') complete(c, now); break; }
        }
    }
    return 0;
}

static void build(void) {
    char b[2048]; int n;
    if (mode_stream)
        n = snprintf(b, sizeof b, "{\"model\":\"%s-%d-%d-%d\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
            "{\"role\":\"user\",\"content\":\"Write a few plain sentences about proxies, buffers and back-pressure.\"}],"
            "\"temperature\":0.7,\"stream\":true}", model, N, I, S);
    else
        n = snprintf(b, sizeof b, "{\"model\":\"%s-1-0-0\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
            "{\"role\":\"user\",\"content\":\"Write a few plain sentences about proxies, buffers and back-pressure.\"}],"
            "\"temperature\":0.7}", model);
    static char hd[65536]; strcpy(hd, req);   /* extra headers were collected in req */
    req_len = sprintf(req, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
        "Accept: */*\r\nUser-Agent: bench\r\nAuthorization: Bearer sk-bench\r\n%sContent-Length: %d\r\n\r\n%s", path, port, hd, n, b);
}

int main(int argc, char **argv) {
    if (argc < 2) return 1;
    mode = argv[1]; int o; optind = 2;
    while ((o = getopt(argc, argv, "p:c:t:r:n:i:s:m:P:H:w:")) != -1) switch (o) {
        case 'p': port = atoi(optarg); break; case 'c': C = atoi(optarg); break; case 't': T = atof(optarg); break;
        case 'r': R = atof(optarg); break; case 'n': N = atoi(optarg); break; case 'i': I = atoi(optarg); break;
        case 's': S = atoi(optarg); break; case 'm': model = optarg; break; case 'P': path = optarg; break;
        case 'w': W = atof(optarg); break;
        case 'H': snprintf(req + strlen(req), 8192, "%s\r\n", optarg); break;
        default: return 1; }
    signal(SIGPIPE, SIG_IGN); signal(SIGTERM, on_term); prctl(PR_SET_TIMERSLACK, 1000);
    int is_rps = !strcmp(mode, "rps"), is_open = !strcmp(mode, "open"), is_stream = !strcmp(mode, "stream"),
        is_flat = !strcmp(mode, "flat"), is_idle = !strcmp(mode, "idle");
    if (C > 20000) return 1;
    if (!strcmp(mode, "spin")) {
        signal(SIGTERM, SIG_DFL);
        struct sched_param sp = {0};
        prctl(PR_SET_PDEATHSIG, SIGKILL); sched_setscheduler(0, SCHED_IDLE, &sp); alarm((unsigned)T);
        for (;;) __asm__ volatile("" ::: "memory");
    }
    if (is_flat) { I = 0; S = 0; }
    if (is_idle) { N = 3; I = 600 * 1000000; S = 0; }
    mode_stream = is_stream || is_flat || is_idle;
    reissue = is_rps || is_flat;
    build();
    ep = epoll_create1(0); cs = calloc(C, sizeof *cs);
    uint64_t t0 = now_ns(), m0 = t0 + (uint64_t)(W * 1e9), end = m0 + (uint64_t)(T * 1e9), seq = 0, first_all = 0;
    measuring = W == 0;
    for (int i = 0; i < C; i++) dial(&cs[i]);
    if (is_open) { for (int i = 0; i < C; i++) idle_list[idle_n++] = i; }
    else if (is_idle) { for (int i = 0; i < C; i++) { issue(&cs[i], now_ns()); if (i % 8 == 7) usleep(4000); } }
    else if (!is_stream) { for (int i = 0; i < C; i++) issue(&cs[i], now_ns()); }
    t0 = now_ns(); if (is_open) { m0 = t0 + (uint64_t)(W * 1e9); end = m0 + (uint64_t)(T * 1e9); }
    if (is_stream) end = t0 + (uint64_t)(T * 1e9);          /* a time limit, not a duration */
    if (is_idle) end = t0 + (uint64_t)(T * 1e9);
    uint64_t step = (uint64_t)(1e9 / R), total_due = (uint64_t)((W + T) * R);
    uint64_t spread = (uint64_t)I * 1000 / C; int next = 0;
    struct epoll_event evs[512]; static char buf[262144];
    while (!quit) {
        uint64_t now = now_ns(), until = end;
        if (!measuring && now >= m0) { measuring = 1; m0 = now; }
        if (is_open) {
            while (seq < total_due && t0 + seq * step <= now && idle_n) { issue(&cs[idle_list[--idle_n]], t0 + seq * step); seq++; }
            if (seq < total_due && idle_n) until = t0 + seq * step;
            else if (seq < total_due) until = now + 1000000000ull;
            else until = end + 5000000000ull;
            if (seq >= total_due && idle_n == C) break;
            if (now >= end + 5000000000ull) break;
        } else if (now >= end) break;
        else if (is_stream && (int)finished == C) break;
        else if (is_stream && next < C) {                  /* starts are spread over one interval */
            while (next < C && t0 + next * spread <= now) { issue(&cs[next], t0 + next * spread); next++; }
            if (next < C) until = t0 + next * spread;
        }
        if (!measuring && m0 < until) until = m0;
        if (is_idle && !first_all) {
            int k = 0;
            for (int i = 0; i < C; i++) k += cs[i].events > 0;
            if (k == C) { first_all = now_ns() - t0; fprintf(stderr, "ready\n"); }
            else if (until > now + 20000000) until = now + 20000000;
        }
        uint64_t d = until > now ? until - now : 0;
        struct timespec ts = {d / 1000000000ull, d % 1000000000ull};
        int k = epoll_pwait2(ep, evs, 512, &ts, NULL);
        for (int i = 0; i < k; i++) {
            conn *c = evs[i].data.ptr;
            ssize_t r = recv(c->fd, buf, sizeof buf, MSG_DONTWAIT);
            uint64_t t = now_ns();
            if (r > 0) { if (feed(c, buf, r, t) < 0) { errors++; drop(c); if (reissue) issue(c, t); else idle_list[idle_n++] = c - cs; } continue; }
            if (r < 0 && errno == EAGAIN) continue;
            int was = c->state;
            if (was == BUSY && c->in_body && !c->chunked && c->left < 0) { c->close_after = 1; complete(c, t); continue; }
            drop(c); reconnects++;
            if (was == BUSY) { errors++; if (reissue) issue(c, t); else { finished++; idle_list[idle_n++] = c - cs; } }
        }
    }
    uint64_t stop = now_ns();
    double el = (stop - (measuring && W ? m0 : t0)) / 1e9;
    printf("{\"mode\": \"%s\", \"elapsed\": %.4f, \"requests\": %lu, \"rps\": %.1f, \"errors\": %lu, \"non200\": %lu, \"reconnects\": %lu, "
        "\"mismatches\": %lu, \"body_bytes\": %lu, \"crc\": \"%08x\", \"bytes\": %lu, \"events\": %lu, \"mb_s\": %.2f, \"events_s\": %.1f, \"unfinished\": %ld",
        mode, el, requests, requests / el, errors, non200, reconnects, mismatches, want_bytes, want_crc, bytes, events,
        bytes / el / 1e6, events / el, is_stream ? (long)C - (long)finished : 0L);
    if (is_idle) { int n = 0; for (int i = 0; i < C; i++) n += cs[i].events > 0; printf(", \"open\": %d, \"first_all_ms\": %.1f", n, first_all / 1e6); }
    show("lat", &lat); show("ttfb", &ttfb); show("ttft", &ttft); show("gap", &gap); show("oneway", &oneway);
    printf("}\n");
    return 0;
}
