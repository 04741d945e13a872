"""What devices can do, and what a traced function asks of them."""
