# Medians of the lines of `run` as an SVG: `jq -rs -L . -f chart.jq FILE`. Bars show how many
# times as fast as GlusterFS a system is, to the right of 1 if it is faster; ticks on Lagan's
# bar stand where its gates are, in the colour of the system that they compare with.
include "figures";

def colors: {lagan: "#2463a8", gluster: "#22272e", moosefs: "#e0962f", plain: "#8fa8a0"};
def bars: [["lagan", 0, 10], ["moosefs", 11, 5], ["plain", 17, 5]];
def width: 900;
def left: 172;
def right: 836;
def top: 112;
def step: 30;

def log: log10 * 1000 | round / 1000;
def text($x; $y; $attributes; $text): "<text x=\"\($x)\" y=\"\($y)\" \($attributes)>\($text)</text>";
def rect($x; $y; $w; $h; $attributes): "<rect x=\"\($x)\" y=\"\($y)\" width=\"\($w)\" height=\"\($h)\" \($attributes)/>";
def line($x; $y; $to_y; $attributes): "<line x1=\"\($x)\" y1=\"\($y)\" x2=\"\($x)\" y2=\"\($to_y)\" \($attributes)/>";

. as $all
| [workloads[] as $w | {w: $w, met: met($w), times: (
    [names | keys_unsorted[] as $s | {key: $s, value: ($all | times($w; $s; "gluster"))}] | from_entries | map_values(select(. != null)))}
  | select(.times | has("gluster"))] as $rows
| ([$rows[].times[] | log] | [(min // 0 | floor), 0, (max // 1 | ceil), 1]) as $logs
| ($logs | min) as $low | ($logs | max) as $high
| def x: (log - $low) / ($high - $low) * (right - left) + left | . * 10 | round / 10;
  (top + ($rows | length) * step) as $bottom
| "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\(width)\" height=\"\($bottom + 76)\" viewBox=\"0 0 \(width) \($bottom + 76)\" font-family=\"DejaVu Sans, Verdana, sans-serif\" font-size=\"11.5\" fill=\"#22272e\">",
  rect(0; 0; width; $bottom + 76; "fill=\"#ffffff\""),
  text(20; 30; "font-size=\"17\" font-weight=\"bold\""; "Times as fast as GlusterFS"),
  text(20; 50; "fill=\"#57606a\""; "By rate, handoffs by their p50; medians on a logarithmic scale. Replica 3, goal 3, copies = 3, one machine."),
  # What the colours mean.
  ([["lagan", 20], ["moosefs", 92], ["plain", 180]][] as [$s, $at]
    | rect($at; 65; 11; 11; "fill=\"\(colors[$s])\""), text($at + 16; 75; ""; names[$s])),
  text(292; 75; "fill=\"#57606a\""; "Lagan must pass the tick:"),
  ([["gluster", 456, "against GlusterFS"], ["moosefs", 588, "MooseFS"], ["plain", 664, "plain FUSE"]][] as [$s, $at, $words]
    | line($at; 63; 78; "stroke=\"\(colors[$s])\" stroke-width=\"2.5\""), text($at + 7; 75; ""; $words)),
  # The scale.
  ([range($low; $high + 1)][] as $e | ($e | exp10) as $v | ($v | x) as $at
    | line($at; top - 6; $bottom; "stroke=\"\(if $e == 0 then "#22272e" else "#d0d7de" end)\""),
      text($at; top - 11; "text-anchor=\"middle\" fill=\"#57606a\""; if $e == 0 then "1 = GlusterFS" elif $e > 0 then $v | shown else "0." + ("0" * (-1 - $e) // "") + "1" end),
      (select($e < $high) | [range(2; 10)][] | . * $v | x | line(.; top; $bottom; "stroke=\"#f0f2f4\""))),
  # A workload's bars begin at 1.
  (1 | x) as $one
  | ($rows | to_entries[] | .key as $i | .value as {w: $w, met: $met, times: $times}
    | (top + $i * step + 4) as $y
    | text(left - 10; $y + 9; "text-anchor=\"end\""; $w),
      (bars[] as [$s, $dy, $h] | $times[$s] | select(. != null) | x
        | rect([., $one] | min; $y + $dy; [. - $one | fabs, 1] | max; $h; "fill=\"\(colors[$s])\"")),
      ([gates($w) | to_entries[] | .key as $s | {s: $s, at: (.value * $times[$s] | x)}?] as $ticks
        | ($ticks[] | line(.at; $y - 2; $y + 12; "stroke=\"#ffffff\" stroke-width=\"4.5\""), line(.at; $y - 2; $y + 12; "stroke=\"\(colors[.s])\" stroke-width=\"2.5\"")),
          ($times.lagan | select(. != null)
            | text(([x, $one, $ticks[].at] | max) + 6; $y + 9; "font-size=\"10.5\" font-weight=\"bold\" fill=\"\(if $met | startswith("no (") then "#b3261e" else "#2463a8" end)\""; shown)))),
  text(20; $bottom + 26; "fill=\"#57606a\" font-size=\"10.5\""; "Lagan has the bytes on the disks of all three servers at close or fsync. GlusterFS acknowledges from memory unless fsync is called,"),
  text(20; $bottom + 42; "fill=\"#57606a\" font-size=\"10.5\""; "MooseFS always; plain FUSE (passthrough_ll with caches) keeps one copy. A red figure misses a gate; a blue one left of its tick"),
  text(20; $bottom + 58; "fill=\"#57606a\" font-size=\"10.5\""; "meets it by the floor of the disk or by its CPU."),
  "</svg>"
