"""Chats: the straight line in `line`, and what it carries along."""
