"""`python -m admin`: the same as `timemachine admin`."""

from admin.cli import admin

if __name__ == "__main__":
    admin(prog_name="admin")
