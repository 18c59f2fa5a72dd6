"""A small crowd of two tenants: see tests.heavy.tenants for the long one."""

from tests.heavy import tenants


def test_nothing_of_a_tenant_ever_reaches_another(tmp_path):
    """Vectors and chats, kept, under way and new, by keys of the config and by callers' own."""
    seen = tenants.run(tmp_path, 600, seed=3)
    assert min(seen.vectors, seen.chats, seen.left) > 10
    assert seen.sources["hit"] > 50
    assert seen.sources["fwd=miss"] > 50
