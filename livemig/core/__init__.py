"""The pure core: it decides. No I/O, clock, logging or asyncio in here."""
