//! Real servers for tests: private PostgreSQL and Redis on free ports, and a proxy that cuts. Standard library only.
