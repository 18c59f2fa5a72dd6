"""Where vectors are kept, and under which names."""
