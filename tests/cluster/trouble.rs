//! What goes wrong in the cluster is said by the stream in time, and what can be survived is.

use std::time::{Duration, Instant};

use millrace_tests::database::{PgDatabase, unique};
use millrace_tests::dataset::products;
use millrace_tests::digest::assert_equal;
use millrace_tests::servers::shared;
use serde_json::{Value, json};

use crate::kube::{Kube, Scene, condition, kube};

/// Within this a stream says what keeps its pods from running.
const SOON: Duration = Duration::from_secs(30);

/// Starts a scene's stream and waits until it says what is wrong; the definition is deleted afterwards.
async fn told(kube: &Kube, scene: &Scene, reasons: &[&str], text: &str) {
    kube.apply(&[scene.definition(json!({"deletionPolicy": "Retain"}))]).await;
    kube.until("stream", &scene.stream(), "there", Value::is_object).await;
    let begun = Instant::now();
    let stream = kube
        .until("stream", &scene.stream(), "in trouble", |object| {
            let (status, reason) = condition(object, "Degraded");
            status == "True" && reasons.contains(&reason.as_str())
        })
        .await;
    let took = begun.elapsed();
    assert!(took < SOON, "{reasons:?} took {took:?}");
    let message = stream["status"]["message"].as_str().unwrap_or_default();
    assert!(message.contains(text), "`{text}` is not in `{message}`");
    let described = kube.kubectl(&["describe", "stream", &scene.stream()]).await;
    assert!(described.contains(text), "{described}");
}

async fn over(kube: &Kube, scene: &Scene) {
    kube.kubectl(&["delete", "streamconfig", &scene.name, "--timeout=150s"]).await;
    kube.until("stream", &scene.stream(), "gone", Value::is_null).await;
}

/// Changes the template from which workers are made, and lets the controller read it.
async fn with_template(kube: &Kube, change: impl Fn(&mut Value)) {
    let map = kube.get("configmap", "millrace-worker").await;
    let mut template: Value = serde_norway::from_str(map["data"]["template.yaml"].as_str().unwrap()).unwrap();
    change(&mut template);
    let patch = json!({"data": {"template.yaml": template.to_string()}}).to_string();
    kube.kubectl(&["patch", "configmap", "millrace-worker", "--type=merge", "-p", &patch]).await;
    kube.kubectl(&["rollout", "restart", "deployment/millrace-controller"]).await;
    kube.kubectl(&["rollout", "status", "deployment/millrace-controller", "--timeout=120s"]).await;
}

#[tokio::test]
async fn a_stream_says_within_thirty_seconds_why_its_pods_do_not_run() {
    let kube = Kube::install("controller.replicas=1,apiserver.enabled=false,query.enabled=false,rbac.aggregate=false").await;
    let scene = async |name: &str| Scene::new_in(&kube, name, &products(10)).await;

    let missing = scene("nosecret").await;
    kube.kubectl(&["delete", "secret", &format!("millrace-conn-{}-from", missing.name)]).await;
    told(&kube, &missing, &["FailedMount"], "not found").await;
    // Once it is there, the same attempt goes on, and nothing is wrong any more.
    kube.apply(&[missing.secret("from", &shared().await.mysql.password)]).await;
    let stream = kube.until("stream", &missing.stream(), "finished", |object| object["status"]["phase"] == "FINISHED").await;
    assert_eq!(condition(&stream, "Degraded").0, "False");
    assert!(stream["status"]["message"].is_null(), "{stream:#}");
    over(&kube, &missing).await;

    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"count/pods": "0"}}});
    kube.apply(&[quota]).await;
    let crowded = scene("quota").await;
    told(&kube, &crowded, &["FailedCreate"], "exceeded quota").await;
    kube.kubectl(&["delete", "resourcequota", "none"]).await;
    let stream = kube.until("stream", &crowded.stream(), "finished", |object| object["status"]["phase"] == "FINISHED").await;
    assert_eq!(stream["status"]["attempt"], 1, "{stream:#}");
    over(&kube, &crowded).await;

    kube.kubectl(&["delete", "serviceaccount", "millrace-worker"]).await;
    let nobody = scene("account").await;
    told(&kube, &nobody, &["FailedCreate"], "serviceaccount \"millrace-worker\" not found").await;
    over(&kube, &nobody).await;
    kube.kubectl(&["create", "serviceaccount", "millrace-worker"]).await;

    with_template(&kube, |template| template["spec"]["nodeSelector"] = json!({"no": "such-node"})).await;
    let nowhere = scene("nowhere").await;
    told(&kube, &nowhere, &["Unschedulable"], "didn't match Pod's node affinity/selector").await;
    over(&kube, &nowhere).await;

    with_template(&kube, |template| {
        template["spec"].as_object_mut().unwrap().remove("nodeSelector");
        template["spec"]["containers"][0]["image"] = json!("localhost:1/no/such-image:1");
    })
    .await;
    let imageless = scene("noimage").await;
    told(&kube, &imageless, &["ErrImagePull", "ImagePullBackOff"], "no/such-image").await;
    over(&kube, &imageless).await;
    kube.delete_namespace().await;
}

#[tokio::test]
async fn a_password_that_changes_during_a_run_is_taken_from_the_secret_by_the_next_attempt() {
    let kube = kube().await;
    let scene = Scene::new("rotated", &products(200_000)).await;
    let user = unique("rotated");
    let sql = |text: String| async { scene.source.execute(&[text]).await.unwrap() };
    sql(format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'before'")).await;
    sql(format!("GRANT ALL ON *.* TO '{user}'@'%'")).await;
    let mut objects = scene.objects().await;
    objects[0] = scene.secret("from", "before");
    objects[2]["spec"]["database"]["username"] = json!(user);
    kube.apply(&objects).await;
    kube.apply(&[scene.definition(json!({"onCutLost": "continue"}))]).await;
    scene.reads(kube, 6_000_000).await;
    sql(format!("ALTER USER '{user}'@'%' IDENTIFIED BY 'after'")).await;
    scene.proxy.cut();
    scene.proxy.release();
    // The server is ahead of the Secret for a moment, as in life.
    tokio::time::sleep(Duration::from_secs(3)).await;
    kube.apply(&[scene.secret("from", "after")]).await;
    let stream = kube.until("stream", &scene.stream(), "finished", |object| object["status"]["phase"] == "FINISHED").await;
    assert!(stream["status"]["attempt"].as_u64() >= Some(2), "{stream:#}");
    let target = PgDatabase::open(&shared().await.postgres, &scene.target).await.unwrap();
    assert_equal(&scene.source.pool, &scene.source.name, &target.client, "public", "products").await.unwrap();
    // What all attempts have left goes with the stream, and nothing waits for the garbage collector.
    kube.kubectl(&["delete", "stream", &scene.stream(), "--timeout=40s"]).await;
    assert!(kube.pods(&scene.stream()).await.is_empty());
    sql(format!("DROP USER '{user}'@'%'")).await;
}

#[tokio::test]
async fn of_two_workers_with_one_identity_the_older_is_fenced_and_nothing_is_doubled() {
    let kube = kube().await;
    let scene = Scene::new("twins", &products(200_000)).await;
    // The table is there with a counter: every row that is committed counts once.
    let target = PgDatabase::create(&shared().await.postgres, "twins").await.unwrap();
    let table = "CREATE TABLE products (id bigint PRIMARY KEY, name varchar(255), price numeric(10,2), weight double precision,
            created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP);
        CREATE TABLE counted (rows bigint NOT NULL);
        CREATE FUNCTION count_rows() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO public.counted SELECT count(*) FROM new_rows; RETURN NULL; END $$;
        CREATE TRIGGER counter AFTER INSERT ON products REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION count_rows()";
    target.client.batch_execute(table).await.unwrap();
    let mut definition = scene.definition(json!({"onCutLost": "continue"}));
    definition["spec"]["target"]["spec"]["db"] =
        json!({"database": target.name, "schemaPolicy": "validate_existing", "writeMode": "append"});
    kube.apply(&[definition]).await;
    scene.reads(kube, 5_000_000).await;
    let name = format!("{}-1", scene.stream());
    let job = kube.get("job", &name).await;
    let pod = kube.pods(&scene.stream()).await.remove(0);
    // The same task once more, by hand: it is not the controller's.
    let mut spec = job["spec"].clone();
    for field in ["selector", "manualSelector"] {
        spec.as_object_mut().unwrap().remove(field);
    }
    let labels =
        json!({"app.kubernetes.io/name": "millrace", "app.kubernetes.io/component": "worker", "app.kubernetes.io/instance": "millrace"});
    spec["template"]["metadata"] = json!({"labels": labels});
    let twin = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": format!("{}-twin", scene.name)}, "spec": spec});
    kube.apply(&[twin]).await;
    // Both wait for the source; the younger has claimed the run by now or soon, and the older's next commit tells it so.
    let epochs = "SELECT max(epoch)::bigint FROM millrace.run";
    let end = Instant::now() + crate::kube::LONG;
    while target.client.query_one(epochs, &[]).await.unwrap().get::<_, Option<i64>>(0) < Some(2) {
        assert!(Instant::now() < end, "the twin has not claimed the run");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    scene.proxy.release();
    let code = |object: &Value| object["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"].clone();
    let ended = kube.until("pod", &pod, "fenced", |object| !code(object).is_null()).await;
    assert_eq!(code(&ended), 4, "{ended:#}");
    kube.until("stream", &scene.stream(), "finished", |object| object["status"]["phase"] == "FINISHED").await;
    assert_equal(&scene.source.pool, &scene.source.name, &target.client, "public", "products").await.unwrap();
    let counted: i64 = target.client.query_one("SELECT sum(rows)::bigint FROM counted", &[]).await.unwrap().get(0);
    assert_eq!(counted, 200_000);
    kube.kubectl(&["delete", "job", &format!("{}-twin", scene.name)]).await;
}
