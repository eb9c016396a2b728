"""The machines that apply commands."""
