"""What happens, and when: the steps, their order, and the commands that start them."""
