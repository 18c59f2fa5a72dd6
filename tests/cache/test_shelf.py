"""The store that other tests use in place of a real one keeps what real ones must keep."""

from contextlib import asynccontextmanager

from tests.cache.shelf import Shelf
from tests.cache.store_contract import StoreContract


class TestShelf(StoreContract):
    @asynccontextmanager
    async def open_store(self, *, ttl=None):
        self.shelf = Shelf(ttl=ttl)
        yield self.shelf

    @asynccontextmanager
    async def reopen(self, *, ttl=None):
        self.shelf.ttl = ttl
        yield self.shelf
