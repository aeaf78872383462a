//! Which rows of the wire contract are served: `docs/api-coverage.md`.

use crate::routes;

/// A row of the contract: its number, what it asks for, and the endpoints that serve it.
type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

macro_rules! rows {
    ($($id:literal $kind:literal: $($method:ident $path:literal),+;)+) => {
        &[$(($id, $kind, &[$((stringify!($method), $path)),+])),+]
    };
}

const ROWS: &[Row] = rows! {
    "C-01" "core": get "/connections";
    "C-02" "core": post "/connections";
    "C-03" "core": get "/connections/{id}";
    "C-04" "core": put "/connections/{id}";
    "C-05" "core": delete "/connections/{id}";
    "C-06" "core": delete "/connections";
    "C-07" "core": put "/connections/{id}/clone";
    "C-08" "core": post "/connections/test";
    "C-09" "core": post "/connections/{id}/ping";
    "C-10" "compat": get "/connections/{id}/ping";
    "C-11" "compat": post "/connections/ping";
    "D-01" "core": get "/connections/{id}/databases";
    "D-02" "core": post "/connections/{id}/databases";
    "D-03" "core": get "/connections/{id}/databases/{db}/schemas";
    "D-04" "core": post "/connections/{id}/databases/{db}/schemas";
    "D-05" "core": get "/connections/{id}/databases/{db}/tables";
    "D-06" "core": get "/connections/{id}/databases/{db}/views";
    "D-07" "core": get "/connections/{id}/databases/{db}/meta";
    "D-08" "core": get "/connections/{id}/databases/{db}/overview";
    "D-09" "core": get "/connections/{id}/databases/{db}/tables/{table}/ddl";
    "D-10" "core": get "/connections/{id}/databases/{db}/views/{view}/ddl";
    "D-11" "optional": get "/connections/{id}/databases/{db}/tables/{table}/meta";
    "D-12" "optional": get "/connections/{id}/databases/{db}/views/{view}/meta";
    "D-13" "compat": get "/connections/{id}/meta", get "/connections/{id}/newmeta";
    "D-14" "compat": get "/connections/{id}/tables";
    "D-15" "compat": get "/connections/{id}/views";
    "D-16" "compat": post "/connections/{id}/schemas";
    "T-01" "core": get "/connections/{id}/databases/{db}/tables/{table}/data";
    "T-02" "core": get "/connections/{id}/databases/{db}/views/{view}/data";
    "T-03" "core": get "/connections/{id}/databases/{db}/tables/{table}/count";
    "T-04" "core": get "/connections/{id}/databases/{db}/views/{view}/count";
    "T-05" "core": post "/connections/{id}/databases/{db}/tables/{table}/rows/insert";
    "T-06" "core": patch "/connections/{id}/databases/{db}/tables/{table}/rows/edit";
    "T-07" "core": delete "/connections/{id}/databases/{db}/tables/{table}/rows/delete",
        post "/connections/{id}/databases/{db}/tables/{table}/rows/delete";
    "T-08" "core": post "/connections/{id}/databases/{db}/tables/{table}/summary";
    "T-09" "optional": post "/connections/{id}/databases/{db}/views/{view}/summary";
    "T-10" "core": post "/connections/{id}/query";
    "T-11" "core": post "/connections/{id}/databases/{db}/query";
    "T-12" "core": post "/connections/{id}/databases/{db}/query/columns";
    "T-13" "compat": get "/connections/{id}/tables/{table}/data";
    "T-14" "compat": get "/connections/{id}/views/{view}/data";
    "S-01" "core": get "/stream-configs";
    "S-02" "core": post "/stream-configs";
    "S-03" "core": get "/stream-configs/{id}";
    "S-04" "core": put "/stream-configs/{id}";
    "S-05" "core": delete "/stream-configs/{id}";
    "S-06" "core": delete "/stream-configs";
    "S-07" "core": put "/stream-configs/{id}/clone";
    "O-01" "core": post "/stream-configs/{id}/start";
    "O-02" "core": post "/streams/{id}/pause";
    "O-03" "core": post "/streams/{id}/resume";
    "O-04" "core": post "/streams/{id}/stop";
    "O-05" "core": get "/streams/{id}/stats";
    "O-06" "core": get "/streams/{id}/logs";
    "O-07" "core": post "/stream/{configId}/validate-constraints";
    "O-08" "compat": post "/stream-configs/{id}/validate-constraints";
    "O-09" "core": get "/streams";
    "O-10" "core": get "/streams/{id}";
    "O-11" "compat": get "/streams/{id}/progress";
    "O-12" "compat": get "/streams/current/stats";
    "O-13" "compat": get "/streams/stat";
    "O-14" "compat": get "/streams/config";
    "O-15" "compat": post "/streams/{id}/start";
    "O-16" "compat": post "/streams/{id}/action";
    "O-17" "compat": post "/streams";
    "O-18" "compat": delete "/streams";
    "O-21" "compat": get "/streams/source/metrics";
    "O-22" "compat": get "/streams/target/metrics";
    "R-01" "core": get "/stream-configs/{id}/history";
    "R-02" "core": delete "/stream-configs/{id}/runs/{runId}";
    "R-03" "core": delete "/stream-configs/{id}/runs";
    "R-04" "optional": get "/stream-configs/{id}/runs";
    "F-01" "core": get "/files/meta";
    "F-02" "compat": get "/files/metadata";
    "F-03" "core": get "/files/data";
    "F-04" "core": get "/files/count";
    "F-05" "core": post "/files/csv/sniff";
    "F-06" "core": post "/files/query";
    "F-07" "core": post "/files/rows/apply";
    "F-08" "core": post "/files/rows/insert";
    "F-09" "core": patch "/files/rows/edit";
    "F-10" "core": delete "/files/rows/delete";
    "F-11" "core": post "/files/summary";
    "F-12" "optional": post "/files/query/columns";
    "B-01" "core": post "/files/s3/configure";
    "B-02" "core": get "/files/s3/validate";
    "B-03" "core": get "/files/s3/list";
    "B-04" "core": get "/files/s3/buckets";
    "B-05" "core": post "/files/s3/buckets";
    "B-06" "core": get "/files/s3/manifest";
    "B-07" "core": post "/files/s3/manifests/create";
    "B-08" "core": post "/files/s3/manifests/filter";
    "B-09" "core": post "/files/s3/manifests/merge";
    "B-10" "core": post "/files/s3/manifests/write";
    "X-01" "core": get "/fs/list";
    "X-02" "core": post "/fs/writable";
    "X-03" "core": get "/fs/roots";
    "Q-01" "core": post "/query/federated";
    "Q-02" "core": post "/query/federated/validate";
    "Q-03" "core": post "/query/federated/schemas";
    "U-01" "core": get "/user";
    "U-02" "core": get "/user/configs";
    "U-03" "core": post "/user/clear-key";
    "Y-01" "core": get "/health";
    "Y-02" "core": get "/ready";
    "Y-03" "core": get "/services/status";
    "Y-04" "core": get "/system/defaults";
    "Y-05" "core": get "/system/sql-logging";
    "Y-06" "core": put "/system/sql-logging";
    "Y-07" "compat": get "/system/logging", put "/system/logging";
    "Y-08" "core": get "/logs/stream";
    "Y-09" "core": post "/system/shutdown";
    "Y-10" "optional": post "/system/restart";
    "Y-11" "core": get "/openapi.json";
    "Y-12" "optional": get "/openapi.yaml";
    "Y-13" "optional": get "/swagger";
    "Y-14" "optional": get "/version";
};

/// `docs/api-coverage.md`.
pub fn coverage_markdown() -> String {
    let served = routes::all().paths();
    let is_served = |row: &&Row| row.2.iter().all(|endpoint| served.contains(endpoint));
    let count = |kind: &str| {
        let of_kind: Vec<&Row> = ROWS.iter().filter(|row| row.1 == kind).collect();
        format!("{} of {} {kind} rows", of_kind.iter().copied().filter(is_served).count(), of_kind.len())
    };
    let mut text = format!(
        "# Coverage of the wire contract\n\nGenerated by `./x gen` from the routes that the server has: {}, {} and {} are served. The language servers and \
         Snowflake's stages are not among these rows; nor are the tools for language models (M-01), which `/mcp` serves (`docs/howto/mcp.md`).\n\n| row | kind | endpoint | served |\n|---|---|---|---|\n",
        count("core"),
        count("compat"),
        count("optional"),
    );
    for row in ROWS {
        let endpoints: Vec<String> = row.2.iter().map(|(method, path)| format!("`{} {path}`", method.to_uppercase())).collect();
        text.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            row.0,
            row.1,
            endpoints.join(", "),
            if is_served(&row) { "yes" } else { "pending" }
        ));
    }
    text
}
