"""What the closing process remembers: closures, events, clocks, money and the outbox; nothing personal in clear."""
