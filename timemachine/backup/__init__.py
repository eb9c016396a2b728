"""What a backup is, and what becomes of its jobs when it is restored. All of it is pure.

A backup is a manifest and a part for each vnode. A part is a file of frames, compressed; each frame
is one page of jobs as the vnode's leader read them from one view of its store, so a part is the
vnode as it was at one index of its log. The manifest is written last: without it there is no
backup.

    pages      a vnode's rows as pages, out of a view
    files      pages as frames of a file, and back
    manifest   what belongs to a backup, with checksums and positions
    uploads    pages cut for the way into a cluster of any size, and the commands they become
    fates      what becomes of each job
    digest     whether two sets of jobs are the same
"""
