"""The flows floor: forward (data side) and monitor. Flows never import each other."""
