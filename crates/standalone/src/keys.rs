//! API keys of one installation: stored as hashes, known at once to a running server because every look-up asks the store.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::config::Mode;
use millrace_core::entitlement::{Account, Denial, Entitlement, Evaluation, EvaluationWarning, Grant, StreamOperation, Usage, warning};
use millrace_core::{Error, Kind, Result, Secret};
use sha2::{Digest as _, Sha256};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite, Transaction};

use crate::store::{Store, failed};

/// What a key looks like: a prefix by which leaks are found, and 256 random bits.
const PREFIX: &str = "mr_";

/// What an evaluation may move when nobody says otherwise: 500 MB, and a day of change data capture.
const EVALUATION_BYTES: i64 = 500_000_000;
const EVALUATION_SECONDS: i64 = 86_400;

/// What an account has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscription {
    /// A local key without limits.
    Unlimited,
    /// Paid.
    Active,
    /// Not paid.
    PastDue,
    /// Ended.
    Canceled,
    /// On trial, with counters.
    Evaluation,
}

impl Subscription {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Unlimited, Self::Active, Self::PastDue, Self::Canceled, Self::Evaluation];

    /// The stored word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unlimited => "unlimited",
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Canceled => "canceled",
            Self::Evaluation => "evaluation",
        }
    }

    /// Reads the stored word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|subscription| subscription.as_str() == text)
    }
}

/// What a new or changed key has.
#[derive(Debug, Clone, Default)]
pub struct KeyTerms {
    /// What it is for.
    pub name: Option<String>,
    /// [`Subscription::Unlimited`] for a new key.
    pub subscription: Option<Subscription>,
    /// Installations at once; any number if none is said.
    pub seats: Option<u32>,
    /// Bytes of an evaluation.
    pub evaluation_bytes: Option<u64>,
}

/// A stored key, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// Its public name.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// A word of [`Subscription`].
    pub subscription: String,
    /// Installations at once.
    pub seats: Option<u32>,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds.
    pub revoked_at: Option<i64>,
    /// Installations with whether they are active.
    pub installs: Vec<(String, bool)>,
}

/// Keys of one data directory.
#[derive(Clone)]
pub struct LocalKeys(Store);

impl LocalKeys {
    /// The keys in this store.
    pub fn new(store: Store) -> Self {
        Self(store)
    }

    /// Makes a key. The key itself is returned once and stored nowhere.
    pub async fn create(&self, terms: &KeyTerms) -> Result<(String, Secret)> {
        let (key, hash) = mint();
        let digits: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let id = format!("key_{digits}");
        sqlx::query("INSERT INTO api_key (id, name, hash, subscription, created_at, seats, convert_limit_bytes, cdc_limit_seconds) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(&id)
            .bind(terms.name.as_deref().unwrap_or_default())
            .bind(hash)
            .bind(terms.subscription.unwrap_or(Subscription::Unlimited).as_str())
            .bind(now())
            .bind(terms.seats)
            .bind(terms.evaluation_bytes.map_or(EVALUATION_BYTES, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)))
            .bind(EVALUATION_SECONDS)
            .execute(&self.0.pool)
            .await
            .map_err(failed("write the store"))?;
        Ok((id, key))
    }

    /// Changes what a key has; what is not said stays.
    pub async fn change(&self, id: &str, terms: &KeyTerms) -> Result<()> {
        let sql = "UPDATE api_key SET name = coalesce(?, name), subscription = coalesce(?, subscription), seats = coalesce(?, seats),
            convert_limit_bytes = coalesce(?, convert_limit_bytes) WHERE id = ?";
        let changed = sqlx::query(sql)
            .bind(terms.name.as_deref())
            .bind(terms.subscription.map(Subscription::as_str))
            .bind(terms.seats)
            .bind(terms.evaluation_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)))
            .bind(id)
            .execute(&self.0.pool)
            .await
            .map_err(failed("write the store"))?;
        one(changed.rows_affected(), id)
    }

    /// Gives a key a new secret; the old one is refused from now on.
    pub async fn rotate(&self, id: &str) -> Result<Secret> {
        let (key, hash) = mint();
        let changed = sqlx::query("UPDATE api_key SET hash = ? WHERE id = ? AND revoked_at IS NULL")
            .bind(hash)
            .bind(id)
            .execute(&self.0.pool)
            .await
            .map_err(failed("write the store"))?;
        one(changed.rows_affected(), id)?;
        Ok(key)
    }

    /// Refuses a key from now on.
    pub async fn revoke(&self, id: &str) -> Result<()> {
        let changed = sqlx::query("UPDATE api_key SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?")
            .bind(now())
            .bind(id)
            .execute(&self.0.pool)
            .await
            .map_err(failed("write the store"))?;
        one(changed.rows_affected(), id)
    }

    /// Binds or unbinds an installation.
    pub async fn set_install(&self, id: &str, install: &str, is_active: bool) -> Result<()> {
        let sql = "INSERT INTO install (key, id, first_seen, last_seen, active) SELECT id, ?, ?, ?, ? FROM api_key WHERE id = ?
            ON CONFLICT (key, id) DO UPDATE SET active = excluded.active";
        let changed = sqlx::query(sql)
            .bind(install)
            .bind(now())
            .bind(now())
            .bind(is_active)
            .bind(id)
            .execute(&self.0.pool)
            .await
            .map_err(failed("write the store"))?;
        one(changed.rows_affected(), id)
    }

    /// All keys, oldest first.
    pub async fn list(&self) -> Result<Vec<KeyEntry>> {
        let rows = sqlx::query("SELECT id, name, subscription, seats, created_at, revoked_at FROM api_key ORDER BY created_at, id")
            .fetch_all(&self.0.pool)
            .await
            .map_err(failed("read the store"))?;
        let installs = sqlx::query("SELECT key, id, active FROM install ORDER BY first_seen, id")
            .fetch_all(&self.0.pool)
            .await
            .map_err(failed("read the store"))?;
        let of = |id: &str| installs.iter().filter(|row| row.get::<&str, _>(0) == id).map(|row| (row.get(1), row.get(2))).collect();
        Ok(rows
            .iter()
            .map(|row| KeyEntry {
                id: row.get(0),
                name: row.get(1),
                subscription: row.get(2),
                seats: row.get(3),
                created_at: row.get(4),
                revoked_at: row.get(5),
                installs: of(row.get(0)),
            })
            .collect())
    }

    /// Looking up a hash of 256 random bits leaks nothing about keys by its time: who does not know the key cannot steer the hash.
    async fn look_up(&self, key: &Secret) -> Result<SqliteRow, Denial> {
        if !key.expose().starts_with(PREFIX) {
            return Err(Denial::AuthenticationFailed);
        }
        let row = sqlx::query("SELECT * FROM api_key WHERE hash = ? AND revoked_at IS NULL")
            .bind(hash(key))
            .fetch_optional(&self.0.pool)
            .await
            .map_err(|_| Denial::Unavailable)?;
        row.ok_or(Denial::AuthenticationFailed)
    }

    async fn operate(&self, key: &Secret, install: &str, operation: StreamOperation) -> Result<Grant, Denial> {
        if install.trim().is_empty() {
            return Err(Denial::AuthenticationFailed);
        }
        let row = self.look_up(key).await?;
        let grant = grant(&row);
        self.bind(&grant.key_id, install, row.get("seats")).await?;
        if operation == StreamOperation::Start {
            match Subscription::parse(&grant.subscription) {
                Some(Subscription::Unlimited | Subscription::Active) => {}
                Some(Subscription::Evaluation) if !evaluation(&row).is_used_up() => {
                    let sql = "UPDATE api_key SET evaluation_started_at = coalesce(evaluation_started_at, ?) WHERE id = ?";
                    let started = sqlx::query(sql).bind(now()).bind(&grant.key_id).execute(&self.0.pool).await;
                    started.map_err(|_| Denial::Unavailable)?;
                }
                _ => return Err(Denial::PaymentRequired),
            }
        }
        Ok(grant)
    }

    /// Remembers the installation, if it may take a seat. Checked and taken in one transaction, so that two cannot take the last seat.
    async fn bind(&self, key: &str, install: &str, seats: Option<u32>) -> Result<(), Denial> {
        let unavailable = |_: sqlx::Error| Denial::Unavailable;
        let mut transaction: Transaction<'_, Sqlite> = self.0.pool.begin().await.map_err(unavailable)?;
        let bound: Option<bool> = sqlx::query_scalar("SELECT active FROM install WHERE key = ? AND id = ?")
            .bind(key)
            .bind(install)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(unavailable)?;
        match bound {
            Some(false) => return Err(Denial::DeviceDeactivated),
            Some(true) => {}
            None => {
                let taken: u32 = sqlx::query_scalar("SELECT count(*) FROM install WHERE key = ? AND active = 1")
                    .bind(key)
                    .fetch_one(&mut *transaction)
                    .await
                    .map_err(unavailable)?;
                if seats.is_some_and(|seats| taken >= seats) {
                    return Err(Denial::SeatLimitReached);
                }
            }
        }
        let sql = "INSERT INTO install (key, id, first_seen, last_seen, active) VALUES (?, ?, ?, ?, 1)
            ON CONFLICT (key, id) DO UPDATE SET last_seen = excluded.last_seen";
        sqlx::query(sql).bind(key).bind(install).bind(now()).bind(now()).execute(&mut *transaction).await.map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)
    }

    async fn owner(&self, key: &Secret, install: &str) -> Result<Account, Denial> {
        let row = self.look_up(key).await?;
        let grant = grant(&row);
        let installs = sqlx::query("SELECT id, active FROM install WHERE key = ?")
            .bind(&grant.key_id)
            .fetch_all(&self.0.pool)
            .await
            .map_err(|_| Denial::Unavailable)?;
        let is_install_active = installs.iter().find(|row| row.get::<&str, _>(0) == install).map(|row| row.get(1));
        Ok(Account {
            name: row.get("name"),
            seat_limit: row.get::<Option<u32>, _>("seats").unwrap_or(0),
            active_bindings: installs.iter().filter(|row| row.get(1)).count() as u32,
            is_install_active,
            evaluation: (grant.subscription == Subscription::Evaluation.as_str()).then(|| evaluation(&row)),
            key_id: grant.key_id,
            subscription: grant.subscription,
        })
    }

    async fn count(&self, key_id: &str, usage: Usage) -> Result<Option<EvaluationWarning>, sqlx::Error> {
        let (bytes, seconds) = match usage {
            Usage::ConvertBytes(bytes) => (bytes as i64, 0),
            Usage::CdcSeconds(seconds) => (0, seconds as i64),
        };
        let mut transaction = self.0.pool.begin().await?;
        let sql = "UPDATE api_key SET convert_bytes = convert_bytes + ?, cdc_seconds = cdc_seconds + ? WHERE id = ? AND subscription = 'evaluation' RETURNING *";
        let Some(row) = sqlx::query(sql).bind(bytes).bind(seconds).bind(key_id).fetch_optional(&mut *transaction).await? else {
            return Ok(None);
        };
        let counters = evaluation(&row);
        let due = warning(Mode::Convert, counters.convert_bytes, counters.convert_limit_bytes, counters.convert_warned_percent)
            .or_else(|| warning(Mode::Cdc, counters.cdc_seconds, counters.cdc_limit_seconds, counters.cdc_warned_percent));
        if let Some(due) = &due {
            let (convert, cdc) = if due.mode == Mode::Convert { (due.threshold, 0) } else { (0, due.threshold) };
            let sql = "UPDATE api_key SET convert_warned = max(convert_warned, ?), cdc_warned = max(cdc_warned, ?),
                evaluation_ended_at = CASE WHEN ? THEN coalesce(evaluation_ended_at, ?) ELSE evaluation_ended_at END WHERE id = ?";
            sqlx::query(sql)
                .bind(convert)
                .bind(cdc)
                .bind(counters.is_used_up())
                .bind(now())
                .bind(key_id)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(due)
    }
}

impl Entitlement for LocalKeys {
    fn identify<'a>(&'a self, key: &'a Secret) -> BoxFuture<'a, Result<Grant, Denial>> {
        async move { Ok(grant(&self.look_up(key).await?)) }.boxed()
    }

    fn authorise<'a>(&'a self, key: &'a Secret, install: &'a str, operation: StreamOperation) -> BoxFuture<'a, Result<Grant, Denial>> {
        self.operate(key, install, operation).boxed()
    }

    fn account<'a>(&'a self, key: &'a Secret, install: &'a str) -> BoxFuture<'a, Result<Account, Denial>> {
        self.owner(key, install).boxed()
    }

    fn record<'a>(&'a self, key_id: &'a str, usage: Usage) -> BoxFuture<'a, Option<EvaluationWarning>> {
        async move {
            self.count(key_id, usage).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the use of an evaluation could not be counted");
                None
            })
        }
        .boxed()
    }
}

fn grant(row: &SqliteRow) -> Grant {
    Grant { key_id: row.get("id"), subscription: row.get("subscription") }
}

fn evaluation(row: &SqliteRow) -> Evaluation {
    let number = |name: &str| row.get::<i64, _>(name).max(0) as u64;
    Evaluation {
        started_at: row.get("evaluation_started_at"),
        ended_at: row.get("evaluation_ended_at"),
        convert_bytes: number("convert_bytes"),
        convert_limit_bytes: number("convert_limit_bytes"),
        convert_warned_percent: number("convert_warned") as u8,
        cdc_seconds: number("cdc_seconds"),
        cdc_limit_seconds: number("cdc_limit_seconds"),
        cdc_warned_percent: number("cdc_warned") as u8,
    }
}

fn mint() -> (Secret, Vec<u8>) {
    let bytes: [u8; 32] = rand::random();
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = Secret::new(format!("{PREFIX}{digits}"));
    let hash = hash(&key);
    (key, hash)
}

fn hash(key: &Secret) -> Vec<u8> {
    Sha256::digest(key.expose().as_bytes()).to_vec()
}

fn one(rows: u64, id: &str) -> Result<()> {
    if rows == 0 { Err(Error::new(Kind::NotFound, format!("there is no key `{id}`"))) } else { Ok(()) }
}

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}
