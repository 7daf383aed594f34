"""What loadtest/compare measures with."""

TRIGGERS = 1000
ORGANIZATIONS = 10

# Of the closed loop.
CONNECTIONS = [64, 512]

# Of one's own maximum, in the open loop.
SHARES = [0.5, 0.8]
