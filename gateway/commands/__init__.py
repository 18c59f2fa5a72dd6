"""What the commands on a cache and on texts do, apart from how they are typed and told."""
