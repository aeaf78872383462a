// The quick start, by `openapi-fetch` with the types that `openapi-typescript` makes of the document.
//
// What it needs comes as JSON in the variable QUICK_START: base, key, install, mysql and postgres (host, port, user, password), source, target.

import createClient from "openapi-fetch";
import type { paths } from "./schema";

declare const process: { env: Record<string, string | undefined>; exitCode?: number };
declare const console: { log(text: string): void };

interface Server {
  host: string;
  port: number;
  user: string;
  password: string;
}
interface Given {
  base: string;
  key: string;
  install: string;
  mysql: Server;
  postgres: Server;
  source: string;
  target: string;
  rows: number;
}

const given = JSON.parse(process.env.QUICK_START ?? "{}") as Given;
const client = createClient<paths>({
  baseUrl: given.base + "/api/v1",
  headers: { "X-API-Key": given.key, "X-Install-ID": given.install },
});

function answer<T>(response: { data?: T; error?: unknown }): T {
  if (response.data === undefined) throw new Error(JSON.stringify(response.error));
  return response.data;
}

async function connect(name: string, type: "mysql" | "postgresql", server: Server, database: string): Promise<string> {
  const { host, port, user, password } = server;
  const body = { name, type, spec: { database: { host, port, username: user, password, database } } };
  return answer(await client.POST("/connections", { body })).id;
}

const source = await connect("my", "mysql", given.mysql, given.source);
const target = await connect("pg", "postgresql", given.postgres, given.target);
const config = answer(
  await client.POST("/stream-configs", {
    body: {
      name: "copy",
      mode: "convert",
      source: { connections: [{ connectionId: source, database: given.source }] },
      target: { id: target, spec: { db: { database: given.target } } },
    },
  }),
);
const stream = answer(await client.POST("/stream-configs/{id}/start", { params: { path: { id: config.id } } })).id;
const end = Date.now() + 120_000;
let stats = answer(await client.GET("/streams/{id}/stats", { params: { path: { id: stream } } }));
while (stats.status === "READY" || stats.status === "RUNNING") {
  if (Date.now() > end) throw new Error(JSON.stringify(stats));
  await new Promise<void>((done) => setTimeout(done, 50));
  stats = answer(await client.GET("/streams/{id}/stats", { params: { path: { id: stream } } }));
}
if (stats.status !== "FINISHED") throw new Error(JSON.stringify(stats));
if (stats.tables[0]?.rowsWritten !== given.rows) throw new Error(JSON.stringify(stats));

const sql = `SELECT count(*) AS n FROM my.${given.source}.products m JOIN pg.public.products p USING (id)`;
const joined = answer(await client.POST("/query/federated", { body: { sql } }));
if (JSON.stringify(joined.rows) !== JSON.stringify([[given.rows]])) throw new Error(JSON.stringify(joined));
console.log("quick start: done");

declare function setTimeout(done: () => void, ms: number): unknown;
export {};
