# Medians of the lines of `run` as the table of README.md: `jq -rs -L . -f table.jq FILE`.
include "figures";

def cell($w; $tag): wrong($w; $tag) as $n | (figure($w; $tag) | shown) + (if $n > 0 then " (\($n) wrong)" else "" end);
def row($w):
  . as $all | gates($w) as $gates
  | [ $w, unit($w), cell($w; "lagan", others[]), (floor_rate($w) | shown),
      (others[] as $s | $all | times($w; "lagan"; $s) | shown),
      ([others[] | select($gates[.]) | "\($gates[.]) x \(names[.])"] | join(", ")), met($w),
      (cpu($w; "lagan", "gluster", "moosefs") | shown),
      (middle($w; "lagan"; "requests_op", "syncs_op") | shown) ]
  | "| \(join(" | ")) |";
def head($columns): "| \($columns | join(" | ")) |", "|\($columns | map(if test("^(workload|unit|gate|met)$") then "---" else "---:" end) | join("|"))|";

. as $all
| head(["workload", "unit", "Lagan", "GlusterFS", "MooseFS", "plain FUSE", "floor", "x GlusterFS", "x MooseFS", "x plain FUSE", "gate", "met",
    "CPU us/op Lagan", "GlusterFS", "MooseFS", "requests/op", "syncs/op"]),
  (workloads[] as $w | row($w)),
  "",
  "With Lagan the bytes are on the disks of all three servers, and the name on those of a majority, when close or fsync returns. GlusterFS acknowledges from memory unless fsync is called, MooseFS always; plain FUSE keeps one copy.",
  (map(select(.w == "floor")) | group_by(.len)[]
    | "floor, \(.[0].len) bytes: \(map(.round_p50_ms) | median | shown) ms for one request, one replication and three syncs at the same time; \(
      map(.syncs_p50_ms) | median | shown) ms for the syncs alone"),
  ("create_small_t16", "create_fsync_t16" | . as $w | [$all | cpu($w; "lagan", "gluster")] as [$l, $g] | select($l != null and $g != null)
    | "\($w): \($l / $g * 100 | shown) % of GlusterFS's CPU, gate 16.7 %: \(if $l * 6 <= $g then "met" else "not met" end)"),
  (.[] | select(.w | startswith("gap")) | "\(.label): \(.w): " + (if .longest_gap_s then
    "longest gap \(.longest_gap_s) s, \(.ops) operations, errors \(.errs)" else "\(.ops) read back, \(.bad) wrong, \(.missing_or_error) missing" end)),
  (map(select(.w == "memory")) | group_by(.name)[] | "\(.[0].name): peak \(map(.peak_mib) | max) MiB")
