# Medians of the driver's JSON lines as the table of README.md: `jq -rsf table.jq FILE`.
def median: sort | if length == 0 then null else (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2 end;
def shown: if . == null then "-"
  elif . >= 100 then (. + 0.5 | floor | tostring)
  elif . >= 10 then (. * 10 + 0.5 | floor / 10 | tostring)
  else (. * 100 + 0.5 | floor / 100 | tostring) end;
# One thread at a time is judged on one core, the rest on all.
def phase_of($w): if ($w | test("_t[0-9]{1,2}$") and (endswith("_t1") | not)) or $w == "read_small_cold" then "wide" else "pinned" end;
def lines($w; $tag): map(select(.w == $w and .label == $tag and .phase == phase_of($w)));
def field($w): if ($w | startswith("handoff")) then "p50_ms"
  elif ($w | test("^(seq|attach)_")) then "mb_s" else "ops_s" end;
def figure($w; $tag): lines($w; $tag) | map(.[field($w)]) | map(select(. != null)) | median;
def wrong($w; $tag): lines($w; $tag)
  | map((.errs // 0) + (.bad // 0) + (.enoent // 0) + (.short // 0) + (.stale // 0) + (.never // 0)) | add // 0;
def row($w; $target):
  . as $all | figure($w; "lagan") as $l | figure($w; "gluster") as $g
  | (if field($w) == "p50_ms" then [$g, $l] else [$l, $g] end) as [$a, $b]
  | (if $a == null or $b == null or $b == 0 then null else $a / $b end) as $ratio
  | ($all | wrong($w; "lagan")) as $bad
  | "| \($w) | \({ops_s: "ops/s", mb_s: "MB/s", p50_ms: "p50 ms"}[field($w)]) | \($l | shown)\(if $bad > 0 then " (\($bad) wrong)" else "" end) | \($g | shown)\(
      ($all | wrong($w; "gluster")) as $n | if $n > 0 then " (\($n) wrong)" else "" end) | \($ratio | shown) | \($target | shown) | \(
      if $ratio == null then "not measured" elif $ratio >= $target and $bad == 0 then "yes" else "no" end) | \(
      $all | lines($w; "lagan") | map(.cpu_all_us_op) | median | shown) | \(
      $all | lines($w; "gluster") | map(.cpu_all_us_op) | median | shown) |";
def targets: [
  ["create_small_t16", 8], ["maildir_t8", 8], ["append_t1", 8],
  ["rename_t1", 3], ["mkdir_t1", 3], ["unlink_t16", 3], ["attach_write_t4", 3], ["untar", 3], ["read_small_cold", 3],
  ["create_small_t1", 2], ["attach_read_cold_t4", 2], ["readdir_plus_cold", 2],
  ["seq_write", 1.2], ["seq_read_cold", 1.2],
  ["handoff_new", 1.667], ["handoff_neg", 1.667], ["handoff_rewrite", 1.667], ["handoff_rename", 1.667], ["handoff_unlink", 1.667]];
. as $all
| "| workload | unit | Lagan | Gluster | times as fast | target | met | CPU us/op Lagan | Gluster |",
  "|---|---|---:|---:|---:|---:|---|---:|---:|",
  (targets[] as [$w, $t] | select(($all | lines($w; "lagan") + lines($w; "gluster") | length) > 0) | $all | row($w; $t)),
  ($all[] | select(.w | startswith("gap")) | "\(.label): \(.w): " + (if .longest_gap_s then
    "longest gap \(.longest_gap_s) s, \(.ops) operations, errors \(.errs)" else "\(.ops) read back, \(.bad) wrong, \(.missing_or_error) missing" end)),
  ($all[] | select(.w == "memory") | "\(.name): peak \(.peak_mib) MiB")
