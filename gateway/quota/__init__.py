"""What a key may use: how much, counted where, and what happens while nobody can count."""
