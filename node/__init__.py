"""The server process. It does what `timemachine/` decides: clocks, disk, network, HTTP."""
