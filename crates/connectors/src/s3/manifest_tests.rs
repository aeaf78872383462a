use serde_json::json;

use super::*;

fn manifest(value: serde_json::Value) -> Manifest {
    serde_json::from_value(value).unwrap()
}

fn now() -> String {
    "2026-01-01T00:00:00Z".to_owned()
}

#[test]
fn manifests_are_known_by_their_names() {
    for name in ["manifest.json", "a/_manifest.json", "a/manifest-20260101.json", "a/manifests/x.json", "manifests/manifest-1.json"] {
        assert!(is_manifest_name(name), "{name}");
    }
    for name in [
        "a/data.json",
        "manifests/x.csv",
        "my-manifest.json",
        "manifest",
        "manifests.json",
        "manifests/deep/x.json",
        "a/mymanifests/x.json",
    ] {
        assert!(!is_manifest_name(name), "{name}");
    }
}

#[test]
fn a_manifest_lists_files_once_and_says_what_they_are() {
    let made = create_manifest(vec!["s3://bucket/a.csv".into(), "/data/b.csv".into()], None, now()).unwrap();
    let metadata = made.metadata.clone().unwrap();
    assert_eq!((metadata.file_format.as_deref(), metadata.created_at), (Some("csv"), Some(now())));
    let stats = made.stats();
    assert_eq!((stats.file_count, stats.s3_files, stats.local_files, stats.total_size_bytes), (2, 1, 1, None));
    for (files, field) in [
        (vec![], "files"),
        (vec!["s3://bucket/a.csv", "s3://bucket/a.csv"], "files[1]"),
        (vec!["a.csv"], "files[0]"),
        (vec!["s3://bucket/"], "files[0]"),
        (vec!["s3://bucket/a/../b.csv"], "files[0]"),
    ] {
        let files: Vec<String> = files.into_iter().map(str::to_owned).collect();
        assert_eq!(create_manifest(files.clone(), None, now()).unwrap_err().field_name(), Some(field), "{files:?}");
    }
}

#[test]
fn filters_look_at_names_keys_or_whole_paths() {
    let all = manifest(json!({
        "files": ["s3://bucket/x/a.csv", "s3://bucket/x/y/b.csv", "s3://other/x/a.parquet"],
        "objects": [{"path": "s3://bucket/x/a.csv", "size": 3}],
        "metadata": {"row_count": 9, "total_size": 100},
    }));
    for (pattern, count) in [("*.csv", 2), ("x/*.csv", 1), ("x/**/*.csv", 2), ("s3://other/**", 1), ("a.*", 2), ("nothing", 0), ("**", 3)] {
        assert_eq!(filter_manifest(&all, pattern).unwrap().files.len(), count, "{pattern}");
    }
    let metadata = filter_manifest(&all, "x/*.csv").unwrap().metadata.unwrap();
    assert_eq!((metadata.row_count, metadata.total_size), (None, Some(3)), "numbers of what is left out are not kept");
    let metadata = filter_manifest(&all, "**").unwrap().metadata.unwrap();
    assert_eq!((metadata.row_count, metadata.total_size), (Some(9), Some(100)));
    assert_eq!(filter_manifest(&all, "[").unwrap_err().field_name(), Some("pattern"));
}

#[test]
fn merged_manifests_hold_every_file_once_and_add_up_only_what_is_known() {
    let one = manifest(json!({"files": ["s3://bucket/a.csv"], "metadata": {"row_count": 1, "total_size": 10, "file_format": "csv"}}));
    let two = manifest(json!({"files": ["s3://bucket/b.csv"], "metadata": {"row_count": 2, "total_size": 20, "file_format": "csv"}}));
    let merged = merge_manifests(&[one.clone(), two.clone()], now()).unwrap();
    assert_eq!(merged.files, ["s3://bucket/a.csv", "s3://bucket/b.csv"]);
    let metadata = merged.metadata.unwrap();
    assert_eq!((metadata.row_count, metadata.total_size, metadata.file_format.as_deref()), (Some(3), Some(30), Some("csv")));
    let twice = merge_manifests(&[one.clone(), two, one], now()).unwrap();
    assert_eq!((twice.files.len(), twice.metadata.unwrap().row_count), (2, None));
    assert_eq!(merge_manifests(&[], now()).unwrap_err().field_name(), Some("manifests"));
}

#[test]
fn a_manifest_is_listed_in_parts_with_folders() {
    let files: Vec<String> = (0..5)
        .map(|n| format!("s3://bucket/in/{n}.csv"))
        .chain(["s3://bucket/in/deep/x.csv".into(), "s3://other/in/y.csv".into()])
        .collect();
    let all = manifest(json!({"files": files, "objects": [{"path": "s3://bucket/in/0.csv", "size": 7, "etag": "e"}]}));
    let first = list_from_manifest(&all, "bucket", "in/", false, 0, 4);
    assert_eq!((first.objects.len(), first.prefixes.len(), first.next.as_deref()), (4, 0, Some("4")));
    assert_eq!((first.objects[0].size, first.objects[0].etag.as_str()), (7, "e"));
    let second = list_from_manifest(&all, "bucket", "in/", false, 4, 4);
    assert_eq!((second.objects.len(), second.prefixes, second.next), (1, vec!["in/deep/".to_owned()], None));
    assert_eq!(list_from_manifest(&all, "bucket", "in/", true, 0, 100).objects.len(), 6);
    assert_eq!(list_from_manifest(&all, "bucket", "out/", true, 0, 100), Page::default());
}
