//! Older names of endpoints: path, id, and the endpoint that it means.

pub(super) const NAMES: &[(&str, &str, &str)] = &[
    ("/connections/ping", "testConnectionOldName", "testConnection"),
    ("/connections/{id}/meta", "getMetadataOldPath", "getMetadata"),
    ("/connections/{id}/newmeta", "getMetadataOlderPath", "getMetadata"),
    ("/connections/{id}/tables", "listTablesOldPath", "listTables"),
    ("/connections/{id}/views", "listViewsOldPath", "listViews"),
    ("/connections/{id}/schemas", "createSchemaOldPath", "createSchema"),
    ("/connections/{id}/tables/{table}/data", "getTableDataOldPath", "getTableData"),
    ("/connections/{id}/views/{view}/data", "getViewDataOldPath", "getViewData"),
    ("/stream-configs/{id}/validate-constraints", "validateConstraintsOldName", "validateConstraints"),
    ("/stream-configs/{id}/runs", "getRuns", "getHistory"),
    ("/streams/{id}/start", "startStreamOldPath", "startStream"),
    ("/streams/{id}/progress", "getStreamProgress", "getStreamStats"),
    ("/streams/stat", "getCurrentStat", "getCurrentStats"),
    ("/files/metadata", "getFileMetadataOldPath", "getFileMetadata"),
    ("/system/logging", "getSqlLoggingOldName", "getSqlLogging"),
    ("/system/logging", "updateSqlLoggingOldName", "updateSqlLogging"),
];
