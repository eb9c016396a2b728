"""The public types, as users meet them."""
