"""A cluster on one machine: every node is a child process of one command.

    process  one node: started, ready, paused, killed, started again
    folder   what a folder of several nodes holds, and the addresses they find each other at
    cluster  the nodes together: formed at the first start, resumed later, stopped in order
    dev      `timemachine dev --nodes N`
    telling  what people read

Only a program that watches nodes from outside is here; nothing is shared with them but files, what
they write to their outputs, and their API.
"""
