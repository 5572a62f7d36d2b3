from tests.berth.conftest import api, migrated, new_database, password_file, postgres

__all__ = ["api", "migrated", "new_database", "password_file", "postgres"]
