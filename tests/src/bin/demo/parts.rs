//! What the demo shows in both its forms.

use std::time::Instant;

use anyhow::{Context as _, bail};
use millrace_tests::api::{Api, Response};
use millrace_tests::database::{MySqlDatabase, PgDatabase, mysql_pool, pg_client};
use millrace_tests::dataset::shop;
use millrace_tests::digest::{assert_equal, table_names};
use millrace_tests::servers::{Server, start_mariadb};
use reqwest::Method;
use serde_json::{Value, json};

/// Characters of an answer that are shown.
const SHOWN: usize = 120;

/// A MariaDB with the sample shop, and the name of its database.
pub(crate) async fn sample_source(scale: f64) -> anyhow::Result<(Server, String)> {
    let server = tokio::task::spawn_blocking(|| start_mariadb(&["--innodb-buffer-pool-size=512M"])).await??;
    let started = Instant::now();
    let database = MySqlDatabase::create(&server, "shop").await?;
    database.execute(&shop(scale)).await?;
    println!("   made a sample shop in {:.1} s", started.elapsed().as_secs_f64());
    Ok((server, database.name.clone()))
}

/// Posts and shows it as curl, its password hidden.
pub(crate) async fn call(api: &Api, path: &str, body: Value) -> anyhow::Result<Value> {
    let mut shown = body.clone();
    if let Some(password) = shown.pointer_mut("/spec/database/password") {
        *password = json!("***");
    }
    let data = if body.is_null() { String::new() } else { format!(" \\\n     -H \"Content-Type: application/json\" -d '{shown}'") };
    println!("   curl -X POST {}/api/v1{path} -H \"X-API-Key: $KEY\" -H \"X-Install-ID: demo\"{}{data}", api.base, host_header(api));
    shown_answer(path, api.call(Method::POST, path, Some(body)).await?)
}

/// Gets and shows it as curl.
pub(crate) async fn get(api: &Api, path: &str) -> anyhow::Result<Value> {
    println!("   curl {}/api/v1{path} -H \"X-API-Key: $KEY\"{}", api.base, host_header(api));
    shown_answer(path, api.get(path).await?)
}

fn host_header(api: &Api) -> String {
    api.host.as_ref().map(|host| format!(" -H \"Host: {host}\"")).unwrap_or_default()
}

fn shown_answer(path: &str, answer: Response) -> anyhow::Result<Value> {
    if answer.status >= 300 {
        bail!("{path} answered {}: {}", answer.status, answer.body);
    }
    let text = answer.body.to_string();
    println!("     → {}", text.chars().take(SHOWN).collect::<String>());
    Ok(answer.body)
}

/// Compares every table of the source with its copy; fails at the first that differs.
pub(crate) async fn verify(mysql: &Server, source: &str, postgres: &Server, target: &str) -> anyhow::Result<()> {
    let pool = mysql_pool(mysql, Some(source)).await?;
    let copy = PgDatabase { client: pg_client(postgres, target).await?, name: target.to_owned() };
    for table in table_names(&pool, source).await? {
        let digest = assert_equal(&pool, source, &copy.client, "public", &table).await?;
        println!("   {table:<18} {:>10} rows  digest {:032x}  equal", digest.rows, digest.sum);
    }
    Ok(())
}

/// A text member of an answer.
pub(crate) fn member(value: &Value, name: &str) -> anyhow::Result<String> {
    value[name].as_str().map(str::to_owned).with_context(|| format!("no `{name}` in {value}"))
}
