"""Backups as the admin's commands take and restore them.

calls      what is asked of a node
places     where backups lie: a directory, or S3 and what is like it
taking     pages of all vnodes become files, and at last a manifest
reading    backups of a place; files are checked and become pages again
kept       which backups a place has, and what goes when one is deleted
restoring  pages go into a cluster, and what is there then is compared
shown      what people see of them
"""
