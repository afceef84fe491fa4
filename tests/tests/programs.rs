//! Real programs on both mounts: they run as on a local file system.
//!
//! The programs are Debian packages, which tests/run installs.

use crate::shorthands::s;
use lagan_tests::run::LONG;
use lagan_tests::{command, sized, with_shared};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A test's limit, against hangs only: a little more than its script has, so that what
/// the script said is shown.
const LIMIT: Duration = s(LONG.as_secs() + 30);

/// Runs a script with `$a` and `$b` as the two mounts' directories and `$l` as a
/// local one; it must end well. Gives what it wrote.
#[track_caller]
fn script(a: &Path, b: &Path, text: &str) -> String {
    let local = tempfile::tempdir().expect("make a local directory");
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", text]);
    bash.env("a", a).env("b", b).env("l", local.path());
    bash.env("HOME", local.path()).env("LC_ALL", "C");
    bash.current_dir(local.path());
    let done = command::run(&mut bash, LONG).expect("run a script");
    done.expect(0).out
}

#[test]
fn git_commits_packs_and_clones_between_the_mounts() {
    with_shared(LIMIT, |a, b| {
        let out = script(a, b, GIT);
        assert_eq!(out.trim(), "same");
    });
}

const GIT: &str = r#"
export GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e
git config --global --add safe.directory '*'
git init -q -b main "$a/repository"
cd "$a/repository"
for round in 1 2 3; do
  mkdir -p "dir-$round"
  for n in {1..25}; do seq "$round" $((n * 20)) >"dir-$round/file-$n"; done
  echo "$round" >changed
  git add -A
  git commit -qm "round $round"
done
git gc -q --aggressive
git fsck --full --strict 2>&1
git clone -q "$b/repository" "$b/clone"
cd "$b/clone"
git mv dir-1 moved
git rm -q dir-2/file-1
git commit -qam "on the other mount"
git push -q origin HEAD:refs/heads/other
git repack -qad
git fsck --full --strict 2>&1
cd "$a/repository"
git merge -q other
[ "$(git rev-parse HEAD^{tree})" = "$(git -C "$a/clone" rev-parse HEAD^{tree})" ] && echo same
"#;

#[test]
fn rsync_and_tar_carry_everything_there_and_back() {
    with_shared(LIMIT, |a, b| {
        let out = script(a, b, ROUND_TRIP);
        assert_eq!(out.trim(), "", "rsync still sees differences");
    });
}

const ROUND_TRIP: &str = r#"
mkdir -p "$l/from/deep/er" "$l/back" "$b/untarred"
cd "$l/from"
for n in {1..60}; do head -c $((n * 997)) /dev/urandom >"deep/file-$n"; done
ln deep/file-1 deep/er/linked
ln deep/file-2 linked-too
ln -s ../file-3 deep/er/symlink
ln -s /nowhere dangling
truncate -s 200M sparse
printf 'in the middle' | dd of=sparse bs=1 seek=100000000 conv=notrunc status=none
mkfifo fifo
mknod device c 1 3
chmod 4750 deep/file-4
chmod 1777 deep/er
chown 1234:4321 deep/file-5 fifo
chown -h 77:88 dangling
setfattr -n user.note -v "some text" deep/file-6
setfattr -n user.on-dir -v 1 deep
setfattr -n trusted.t -v 2 deep/file-7
touch -d '1969-12-31 23:59:58.5 UTC' deep/file-8
touch -d '2100-01-01 00:00:00.123456789 UTC' deep
touch -h -d '2001-02-03 04:05:06.789 UTC' dangling
name=$(printf 'with\nline and \xff')
echo odd >"$name"
differ() { rsync -aHAXnic --numeric-ids --delete "$1/" "$2/"; }
rsync -aHAXS --numeric-ids "$l/from/" "$a/copied/"
differ "$l/from" "$b/copied"
tar -C "$b/copied" --xattrs --xattrs-include='*' --sparse --numeric-owner --warning=no-timestamp -cf "$a/all.tar" .
tar -C "$b/untarred" --xattrs --xattrs-include='*' --numeric-owner --warning=no-timestamp -xpf "$b/all.tar"
# tar gives the directory that it was told to fill the times that the archive has
differ "$l/from" "$a/untarred"
rsync -aHAXS --numeric-ids "$b/untarred/" "$l/back/"
differ "$l/from" "$l/back"
# same size, the old time put back: only the content says that it is another
printf 'X' | dd of=deep/file-9 bs=1 seek=5 conv=notrunc status=none
touch -r "$a/copied/deep/file-9" deep/file-9
exec 3<"$b/copied/deep/file-9"
cat <&3 >/dev/null
rsync -ac --inplace deep/file-9 "$a/copied/deep/"
cmp deep/file-9 "$b/copied/deep/file-9"
cmp deep/file-9 /proc/self/fd/3
[ "$(du -k "$a/untarred/sparse" | cut -f1)" -lt 10000 ]
"#;

#[test]
fn sqlite_keeps_every_row_written_from_both_mounts() {
    with_shared(LIMIT, |a, b| {
        let text = SQLITE.replace("ROUNDS", &sized(12, 200).to_string());
        let out = script(a, b, &text);
        let words: Vec<&str> = out.split_whitespace().collect();
        let rows = (sized(12, 200) * 4 * 10).to_string();
        assert_eq!(words, ["ok", &rows, "wal", "ok", &rows]);
    });
}

const SQLITE: &str = r#"
sql() { sqlite3 -bail -cmd '.timeout 600000' "$@"; }
insert() { # FILE WRITER: transactions of ten rows
  for ((n = 0; n < ROUNDS; n++)); do
    sql "$1" "begin immediate; insert into t(writer, text)
      select '$2', hex(randomblob(200)) from (values (1),(2),(3),(4),(5),(6),(7),(8),(9),(10)); commit;"
  done
}
sql "$a/rollback.db" "create table t(id integer primary key, writer text, text text); create index i on t(text);"
for writer in 1 2; do
  insert "$a/rollback.db" "a$writer" & pids[writer]=$!
  insert "$b/rollback.db" "b$writer" & pids[writer + 2]=$!
done
for pid in "${pids[@]}"; do wait "$pid"; done
sql "$b/rollback.db" "pragma integrity_check; select count(*) from t;"
sql "$a/wal.db" "pragma journal_mode=wal; create table t(id integer primary key, writer text, text text); create index i on t(text);"
for writer in 1 2 3 4; do insert "$a/wal.db" "$writer" & pids[writer]=$!; done
for pid in "${pids[@]}"; do wait "$pid"; done
sql "$a/wal.db" "pragma integrity_check; select count(*) from t;"
"#;

#[test]
fn fio_reads_back_what_it_wrote() {
    with_shared(LIMIT, |a, b| {
        let text = FIO.replace("SIZE", &format!("{}m", sized(16, 512)));
        script(a, b, &text);
    });
}

const FIO: &str = r#"
verify() { # DIRECTORY NAME OPTIONS...
  fio --directory="$1" --name="$2" --size=SIZE --verify=crc32c --verify_fatal=1 --do_verify=1 \
    --randrepeat=1 --end_fsync=1 --output-format=terse "${@:3}" >/dev/null
}
verify "$a" random --rw=randwrite --bsrange=512-64k --bs_unaligned --ioengine=psync --fsync=200 &
first=$!
verify "$b" mapped --rw=randwrite --bs=4k --ioengine=mmap &
second=$!
verify "$a" direct --rw=randwrite --bs=16k --ioengine=libaio --iodepth=16 --direct=1
wait "$first"
wait "$second"
verify "$b" onwards --rw=write --bs=128k --ioengine=psync
# what one mount wrote, the other verifies
fio --directory="$a" --name=onwards --size=SIZE --verify=crc32c --verify_fatal=1 --rw=read --bs=128k \
  --ioengine=psync --output-format=terse >/dev/null
"#;

#[test]
fn stress_ng_finds_nothing_wrong_with_files() {
    with_shared(LIMIT, |a, b| {
        let text = STRESS.replace("SECONDS_EACH", &sized(6, 300).to_string());
        script(a, b, &text);
    });
}

const STRESS: &str = r#"
mkdir "$a/stress"
stress-ng --temp-path "$a/stress" --verify --timeout SECONDS_EACH --oomable \
  --access 1 --chdir 1 --chdir-dirs 64 --chmod 1 --chown 1 --dentry 1 --dentries 128 --dir 1 --dir-dirs 64 \
  --dirdeep 1 --dirdeep-inodes 200 --dup 1 --fallocate 1 --fallocate-bytes 4m --fcntl 1 \
  --filename 1 --flock 1 --fstat 1 --getdent 1 --hdd 1 --hdd-bytes 4m --iomix 1 --iomix-bytes 4m \
  --lease 1 --link 1 --locka 1 --lockf 1 --lockofd 1 --open 1 \
  --readahead 1 --readahead-bytes 4m --rename 1 --seek 1 --seek-size 4m --sendfile 1 --sendfile-size 1m \
  --symlink 1 --sync-file 1 --sync-file-bytes 4m --touch 1 --utime 1 --xattr 1 2>&1
"#;

#[test]
fn postgresql_recovers_from_a_kill() {
    with_shared(LIMIT, |a, b| {
        let root = a.parent().and_then(Path::parent).expect("a test's root");
        for dir in [root, a] {
            std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).expect("open it");
        }
        let text = POSTGRESQL.replace("SECONDS_OF_LOAD", &sized(5, 120).to_string());
        let out = script(a, b, &text);
        assert_eq!(
            out.trim(),
            "t",
            "accounts, tellers, branches and history disagree"
        );
    });
}

const POSTGRESQL: &str = r#"
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)
PATH=${bin:+$bin:}$PATH
chmod 755 "$l"
mkdir "$a/data" "$l/socket"
chown nobody:nogroup "$a/data" "$l/socket"
chmod 700 "$a/data"
as() { setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"; }
cd "$l"
as initdb --pgdata="$a/data" --auth=trust --username=me >/dev/null
serve() { as pg_ctl --pgdata="$a/data" --silent --wait --timeout=500 --log="$l/socket/log" \
  --options="-k $l/socket -c listen_addresses='' -c max_connections=20" "$1" </dev/null >/dev/null; }
ask() { psql --host="$l/socket" --username=me --dbname=postgres --no-psqlrc --tuples-only --no-align --command="$1"; }
load() { pgbench --host="$l/socket" --username=me --no-vacuum --client=4 --time=SECONDS_OF_LOAD postgres; }
serve start
trap 'serve stop || true' EXIT
pgbench --host="$l/socket" --username=me --initialize --scale=2 --quiet postgres 2>/dev/null
load >/dev/null & loading=$!
sleep 3
postmaster=$(head -n 1 "$a/data/postmaster.pid")
kill -9 "$postmaster"
wait "$loading" || true
# its children end when they notice; until then it does not start
until serve start 2>/dev/null; do
  # one that has ended, but that nobody waits for, counts as running
  if grep -q '^State:.Z' "/proc/$postmaster/status" 2>/dev/null; then
    rm -f "$a/data/postmaster.pid" "$l"/socket/.s.PGSQL.*.lock
  fi
  if [ "$SECONDS" -gt 500 ]; then tail -n 20 "$l/socket/log" >&2; exit 1; fi
  sleep 1
done
load >/dev/null 2>&1
ask "select (select sum(abalance) from pgbench_accounts) = (select coalesce(sum(delta), 0) from pgbench_history)
  and (select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches)
  and (select sum(bbalance) from pgbench_branches) = (select coalesce(sum(delta), 0) from pgbench_history)
  and (select count(*) from pgbench_history) > 0"
serve stop
trap - EXIT
"#;

#[test]
fn nginx_serves_what_the_other_mount_writes() {
    with_shared(LIMIT, |a, b| {
        script(a, b, NGINX);
    });
}

const NGINX: &str = r#"
mkdir -p "$a/attachments"
cat >"$l/nginx.conf" <<END
user root;
worker_processes 2;
pid $l/nginx.pid;
error_log $l/error.log;
events {}
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  server { listen unix:$l/socket; root $b/attachments; }
}
END
get() { curl -sS --fail --unix-socket "$l/socket" "http://mail/$1" "${@:2}"; }
nginx -c "$l/nginx.conf" -e "$l/error.log"
trap 'nginx -c "$l/nginx.conf" -e "$l/error.log" -s stop; while [ -e "$l/nginx.pid" ]; do sleep 0.1; done' EXIT
for n in {1..40}; do
  head -c $((n * n * 3331)) /dev/urandom >"$a/attachments/$n"
  get "$n" | cmp - "$a/attachments/$n"
done
get 40 --range 1000000-2000000 | cmp - <(tail -c +1000001 "$a/attachments/40" | head -c 1000001)
# the same size and name, in place and by rename
for n in 38 39; do head -c $((n * n * 3331)) /dev/urandom >"$l/$n"; done
dd if="$l/38" of="$a/attachments/38" bs=1M conv=notrunc status=none
cp "$l/39" "$a/attachments/new"
mv "$a/attachments/new" "$a/attachments/39"
for n in 38 39; do get "$n" | cmp - "$l/$n"; done
# several at a time, while there are more and more
for worker in 1 2 3 4; do
  (for n in {41..60}; do
    head -c 300000 /dev/urandom >"$a/attachments/$worker-$n"
    get "$worker-$n" | cmp - "$a/attachments/$worker-$n"
    get "$n" 2>/dev/null && exit 1
  done; exit 0) & pids[worker]=$!
done
for pid in "${pids[@]}"; do wait "$pid"; done
rm "$a/attachments/1"
! get 1 2>/dev/null
"#;

#[test]
fn postfix_delivers_what_dovecot_serves_from_the_other_mount() {
    with_shared(LIMIT, |a, b| {
        let root = a.parent().and_then(Path::parent).expect("a test's root");
        for dir in [root, a] {
            std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).expect("open it");
        }
        // an address of its own: no connection out of another test has the port
        let [_, _, high, low] = std::process::id().to_be_bytes();
        script(
            a,
            b,
            &MAIL.replace("ADDRESS", &format!("127.78.{high}.{low}")),
        );
    });
}

/// Postfix writes into a Maildir on one mount while Dovecot shows it on the other.
const MAIL: &str = r#"
chmod 755 "$l"
mkdir "$l"/{postfix,spool,data,dovecot,sent} "$a/mail"
chown postfix "$l/data"
chown nobody:nogroup "$a/mail"
cat >"$l/postfix/main.cf" <<END
compatibility_level = 3.6
queue_directory = $l/spool
data_directory = $l/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
shlib_directory = /usr/lib/postfix
meta_directory = /etc/postfix
mail_owner = postfix
setgid_group = postdrop
maillog_file = $l/mail.log
maillog_file_prefixes = $l
myhostname = mail.invalid
mydestination =
alias_maps =
inet_interfaces = loopback-only
virtual_mailbox_domains = test.invalid
virtual_mailbox_base = $a/mail
virtual_mailbox_maps = static:user/
virtual_uid_maps = static:$(id -u nobody)
virtual_gid_maps = static:$(id -g nobody)
END
cat >"$l/postfix/master.cf" <<END
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
proxymap unix - - n - - proxymap
virtual unix - n n - - virtual
END
cat >"$l/dovecot.conf" <<END
protocols = imap
listen = ADDRESS
base_dir = $l/dovecot
state_dir = $l/dovecot
log_path = $l/dovecot.log
ssl = no
disable_plaintext_auth = no
mmap_disable = yes
mail_location = maildir:$b/mail/user
first_valid_uid = 1
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=$l/dovecot
}
service imap-login {
  inet_listener imap {
    port = 10143
  }
  inet_listener imaps {
    port = 0
  }
}
END
stop() {
  status=$?
  masters=$(cat "$l/spool/pid/master.pid" "$l/dovecot/master.pid")
  postfix -c "$l/postfix" stop 2>/dev/null || true
  doveadm -c "$l/dovecot.conf" stop || true
  for master in $masters; do
    # a zombie has ended, too
    while grep -q '^State:.[^Z]' "/proc/$master/status" 2>/dev/null; do sleep 0.1; done
  done
  [ "$status" = 0 ] || cat "$l/mail.log" "$l/dovecot.log" >&2
}
imap() { curl -sS --user user:secret "imap://ADDRESS:10143/$1" "${@:2}"; }
bodies() { for file in "$@"; do tr -d '\r' <"$file" | sed '1,/^$/d' | sha256sum; done | sort; }
trap stop EXIT
dovecot -c "$l/dovecot.conf"
postfix -c "$l/postfix" start 2>/dev/null
for n in {1..40}; do
  { printf 'From: sender@test.invalid\nSubject: mail %s\n\n' "$n"; head -c $((n * n * 200)) /dev/urandom | base64; } >"$l/sent/$n"
done
(for n in {1..40}; do sendmail -C "$l/postfix" -f sender@test.invalid user@test.invalid <"$l/sent/$n"; done) & sending=$!
mails() { imap "" -X 'STATUS INBOX (MESSAGES)' 2>/dev/null | tr -dc 0-9; }
for try in {1..3000}; do
  [ "$(mails)" = 40 ] && break
  sleep 0.1
done
wait "$sending"
mkdir "$l/got"
for n in {1..40}; do imap "INBOX;MAILINDEX=$n" >"$l/got/$n"; done
cmp <(bodies "$l"/sent/*) <(bodies "$l"/got/*)
imap INBOX -X 'STORE 1:* +FLAGS (\Seen)' >/dev/null
[ "$(ls "$a"/mail/user/cur | grep -c ':2,S$')" = 40 ]
"#;
