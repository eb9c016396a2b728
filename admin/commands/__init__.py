"""The commands that ask a node, a module for each group; `admin.program` names them."""
