# What table.jq and chart.jq both need of the lines of `run`: medians, ratios, gates.
def median: sort | if length == 0 then null else (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2 end;
def shown: if . == null then "-"
  elif . >= 100 then (. + 0.5 | floor | tostring)
  elif . >= 10 then (. * 10 + 0.5 | floor / 10 | tostring)
  else (. * 100 + 0.5 | floor / 100 | tostring) end;

# Systems by label, as the table names them.
def names: {lagan: "Lagan", gluster: "GlusterFS", moosefs: "MooseFS", plain: "plain FUSE"};
def others: ["gluster", "moosefs", "plain"];

# The driver prints some checks of what a workload has left as lines of their own.
def checked: {append_check: "append_t1", rand_write_check: "rand_write_fsync32"};
# Workloads, in the order in which the driver ran them.
def workloads: reduce (.[] | select(.label | in(names)) | .w) as $w
  ([]; if any(.[]; . == $w) or ($w | in(checked)) or ($w | test("^(gap|memory)")) then . else . + [$w] end);

def of($w; $tag): map(select(.label == $tag and .w == $w));
def field($w): if ($w | startswith("handoff")) then "p50_ms"
  elif ($w | test("^(seq|attach)_")) then "mb_s" else "ops_s" end;
def unit($w): {ops_s: "ops/s", mb_s: "MB/s", p50_ms: "p50 ms"}[field($w)];
def middle($w; $tag; $field): of($w; $tag) | map(.[$field] | select(. != null)) | median;
def figure($w; $tag): middle($w; $tag; field($w));
def wrong($w; $tag): map(select(.label == $tag and (.w == $w or checked[.w] == $w)))
  | map((.errs // 0) + (.bad // 0) + (.enoent // 0) + (.short // 0) + (.stale // 0) + (.never // 0)) | add // 0;
# How many times as fast `one` is as `two`.
def times($w; $one; $two): [figure($w; $one), figure($w; $two)]
  | (if field($w) == "p50_ms" then reverse else . end) as [$a, $b]
  | if $a == null or $b == null or $b == 0 then null else $a / $b end;

# How many times as fast as another system Lagan should be at least.
def gates($w):
  { gluster: {
      create_small_t16: 10, create_fsync_t16: 10, bigdir_fill_t8: 10, maildir_t8: 8,
      create_small_t1: 3.5, create_fsync_t1: 3.5, append_t1: 3.5, maildir_t1: 3, untar: 3,
      rename_t1: 2.5, mkdir_t1: 2.5, rmdir_t1: 2.5, unlink_t1: 2.5, unlink_t16: 3, rm_rf: 3,
      read_small_cold: 3, tree_read_cold: 3, stat_cold: 3,
      attach_write_t4: 2, attach_read_cold_t4: 2, readdir_plus_cold: 2, rand_write_fsync32: 2,
      seq_write: 1.5, seq_read_cold: 1.5, handoff_new: 2.5, handoff_neg: 2.5 },
    plain: {
      stat_hot: 0.8, rand_read_hot: 0.8, seq_read_hot: 0.8, attach_read_hot_t4: 0.8, readdir_plus_hot: 0.8 },
    moosefs: {
      create_small_t16: 1.5, maildir_t8: 1.5, untar: 1.5, read_small_cold: 1.5, tree_read_cold: 1.5, append_t1: 1.5,
      stat_cold: 1, readdir_plus_cold: 1, create_small_t1: 1, create_fsync_t1: 1 } }
  | map_values(.[$w]) | with_entries(select(.value != null));

# The rate of `sync-floor` for workloads that do one durable thing after the other, by its
# median round: a single slow one must not make the gate easy.
def floor_rate($w):
  (if ($w | test("^(create_small|create_fsync|maildir)_t1$")) then 16384
   elif ($w | test("^(append|rename|mkdir|rmdir|unlink)_t1$|^(untar|rm_rf)$")) then 4096 else null end) as $len
  | map(select(.w == "floor" and .len == $len) | 1000 / .round_p50_ms) | median;

def cpu($w; $tag): middle($w; $tag; "cpu_all_us_op");
def at_floor($w): [figure($w; "lagan"), floor_rate($w)] as [$rate, $most]
  | $rate != null and $most != null and $rate * 1.3 >= $most;
# On a machine where GlusterFS's creates take their usual CPU, little CPU is enough.
def cheap($w): ($w | test("^create_.*_t16$")) and ([cpu($w; "lagan"), cpu($w; "gluster")] as [$l, $g]
  | $l != null and $g != null and $l <= 1100 and $g >= 4300);

# Whether the gates of a workload are met: "" if it has none.
def met($w):
  . as $all | gates($w) as $gates
  | ($gates | with_entries(.value = {gate: .value, times: (.key as $s | $all | times($w; "lagan"; $s))})) as $by
  | ($by | map_values(select(.times != null and .times < .gate)) | keys_unsorted | map(names[.])) as $missed
  | if wrong($w; "lagan") > 0 then "no (wrong)"
    elif $gates == {} then ""
    elif $missed == [] and any($by[]; .times == null) then "not measured"
    elif $missed == [] then "yes"
    elif at_floor($w) then "yes (floor)"
    elif cheap($w) then "yes (CPU)"
    else "no (\($missed | join(", ")))" end;
