//! Looking into PostgreSQL databases and editing their rows, on a real server.
