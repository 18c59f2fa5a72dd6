"""What the commands on a cache, on texts and on models do, apart from how they are typed."""
