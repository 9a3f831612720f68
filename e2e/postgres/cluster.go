package postgres

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"seaway.dev/seaway/e2e/logbook"
	"seaway.dev/seaway/e2e/stage"
)

// programs is where Debian puts PostgreSQL 15.
const programs = "/usr/lib/postgresql/15"

// Cluster is PostgreSQL over three of the lab's clusters, with writers in each.
type Cluster struct {
	stage *stage.Stage
	tell  func(string, ...any)
	logs  *logbook.Folder
	sites []*site
	seen  []attempt
}

// configuration of every server. The time-outs bound how long a standby believes in a primary that says nothing: it is
// the slice that tells sooner.
const configuration = `
listen_addresses = '*'
unix_socket_directories = '/data'
shared_buffers = 32MB
jit = off
wal_keep_size = 512MB
max_wal_senders = 10
synchronous_standby_names = '` + quorum + `'
wal_receiver_timeout = 2s
wal_sender_timeout = 2s
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 200ms
timezone = UTC
log_timezone = UTC
`

// quorum: every write waits for one of the two others; a server's own name in it does no harm.
const quorum = "ANY 1 (c1, c2, c3)"

var scripts = map[string]string{
	"/etc/passwd": "root:x:0:0:root:/:/bin/sh\npostgres:x:70:70:postgres:/data:/bin/sh\n",
	"/etc/group":  "root:x:0:\npostgres:x:70:\n",
	// A pod that waits: which server is the primary is the story's business.
	"/pg/wait": "#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 1; done\n",
	"/pg/primary": `#!/bin/sh
set -e
# What is made here need not survive a power cut; everything that is written from then on must (fsync is on).
initdb --no-sync -D /data/db -U postgres -A trust -E UTF8 --no-locale >/data/initdb.log
cat >>/data/db/postgresql.conf <<END
` + configuration + `
END
echo 'host all all all trust
host replication all all trust' >>/data/db/pg_hba.conf
pg_ctl -D /data/db -l /data/log -w start >/dev/null
`,
	"/pg/standby": `#!/bin/sh
pg_ctl -D /data/db -m immediate stop >/dev/null 2>&1
set -e
rm -rf /data/db
pg_basebackup --no-sync -h "$1" -U postgres -D /data/db -c fast -X stream
echo "primary_conninfo = '$2'" >>/data/db/postgresql.auto.conf
touch /data/db/standby.signal
pg_ctl -D /data/db -l /data/log -w start >/dev/null
`,
}

// New makes the servers and the writers. The slice, its namespaces and the clusters must be there.
func New(ctx context.Context, s *stage.Stage, clusters []string, tell func(string, ...any)) (*Cluster, error) {
	c := &Cluster{stage: s, tell: tell}
	began := time.Now()
	image, err := c.image(ctx)
	if err != nil {
		return nil, err
	}
	tell("  %6.1fs image built, and in every node", time.Since(began).Seconds())
	if c.logs, err = logbook.New("postgres"); err != nil {
		return nil, err
	}
	for _, name := range clusters {
		c.sites = append(c.sites, &site{stage: s, cluster: name})
	}
	err = stage.Each(clusters, func(name string) error {
		if _, err := s.Apply(ctx, name, manifest(image, c.logs.Path, name, clusters)); err != nil {
			return err
		}
		if _, err := s.Kubectl(ctx, name, "rollout", "status", "statefulset/"+app, "-n", namespace, "--timeout=90s"); err != nil {
			return err
		}
		_, err := s.Seawayctl(ctx, name, "export", app, "-n", namespace)
		return err
	})
	if err != nil {
		return c, err
	}
	tell("  %6.1fs servers run", time.Since(began).Seconds())
	err = c.begin(ctx)
	tell("  %6.1fs standbys stream", time.Since(began).Seconds())
	return c, err
}

// Close ends sessions and removes the writers' logs.
func (c *Cluster) Close() {
	for _, s := range c.sites {
		s.close()
	}
	c.logs.Remove()
}

// image has Debian's PostgreSQL, the writer, and the scripts above.
func (c *Cluster) image(ctx context.Context) (string, error) {
	if _, err := os.Stat(programs + "/bin/postgres"); err != nil {
		return "", fmt.Errorf("%w: install Debian's postgresql-15", err)
	}
	writer, err := c.stage.Program(ctx, "./e2e/postgres/writer", "postgres-writer")
	if err != nil {
		return "", err
	}
	libs, err := filepath.Glob(programs + "/lib/*.so")
	if err != nil {
		return "", err
	}
	im := stage.RootImage{Name: "seaway-postgres", Files: scripts, Add: map[string]string{"/bin/writer": writer},
		Trees: []string{"/usr/share/postgresql/15"}}
	for _, p := range []string{"postgres", "initdb", "pg_ctl", "pg_basebackup", "psql"} {
		im.Programs = append(im.Programs, filepath.Join(programs, "bin", p))
	}
	for _, l := range libs {
		if !strings.HasPrefix(filepath.Base(l), "llvmjit") { // the compiler alone is larger than the rest
			im.Programs = append(im.Programs, l)
		}
	}
	for _, z := range []string{"/usr/share/zoneinfo/UTC", "/usr/share/zoneinfo/GMT"} {
		if _, err := os.Stat(z); err == nil {
			im.Programs = append(im.Programs, z)
		}
	}
	return c.stage.EnsureImage(ctx, im)
}

func manifest(image, logs, cluster string, clusters []string) string {
	var hosts []string
	for _, n := range clusters {
		hosts = append(hosts, host(n))
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {app: %[1]s}, ports: [{name: postgres, port: 5432}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  serviceName: %[1]s
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsUser: 70, runAsGroup: 70, fsGroup: 70}
      containers:
      - name: postgres
        image: %[3]s
        imagePullPolicy: Never
        command: [/pg/wait]
        resources: {requests: {cpu: %[8]s}}
        env: [{name: PATH, value: "/bin:%[7]s/bin"}, {name: TZ, value: UTC}, {name: HOME, value: /data}]
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: writer, namespace: %[2]s, labels: {app: writer}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 70, runAsGroup: 70}
  containers:
  - name: writer
    image: %[3]s
    imagePullPolicy: Never
    resources: {requests: {cpu: %[9]s}}
    command: [/bin/writer, -name, %[5]s, -log, /logs/%[5]s.log, %[6]s]
    volumeMounts: [{name: logs, mountPath: /logs}]
  volumes: [{name: logs, hostPath: {path: %[4]s}}]
`, app, namespace, image, logs, cluster, strings.Join(hosts, ", "), programs, stage.DatabaseCPU, stage.ProbeCPU)
}

// begin makes the first site the primary and the others its standbys.
func (c *Cluster) begin(ctx context.Context) error {
	first := c.sites[0]
	if _, err := first.run(ctx, "/pg/primary"); err != nil {
		return fmt.Errorf("first server: %w", err)
	}
	if err := first.open(ctx); err != nil {
		return err
	}
	// Nothing can be acknowledged before there is a standby; the table need not wait for one.
	if _, err := first.ask(ctx, "set synchronous_commit = local; create table promised (id text primary key); reset synchronous_commit"); err != nil {
		return err
	}
	return c.restore(ctx, first)
}

// restore makes every other site a standby of the primary, and waits until all stream.
func (c *Cluster) restore(ctx context.Context, primary *site) error {
	return c.each(func(s *site) error {
		if s == primary {
			return nil
		}
		return stage.Await(ctx, 2*time.Minute, func() error {
			if s.sql != nil {
				if ok, err := s.streams(ctx); ok && err == nil {
					return nil
				}
			}
			return s.rebuild(ctx, primary.cluster)
		})
	})
}

func (c *Cluster) each(f func(*site) error) error {
	byName := map[string]*site{}
	var names []string
	for _, s := range c.sites {
		byName[s.cluster] = s
		names = append(names, s.cluster)
	}
	return stage.Each(names, func(n string) error { return f(byName[n]) })
}

// attempts reads what the writers have added to their logs, and returns all since a time.
func (c *Cluster) attempts(since time.Time) ([]attempt, error) {
	more, err := c.logs.More()
	if err != nil {
		return nil, err
	}
	for _, text := range more {
		list, err := readLog(strings.NewReader(text))
		if err != nil {
			return nil, err
		}
		c.seen = append(c.seen, list...)
	}
	return slices.DeleteFunc(slices.Clone(c.seen), func(a attempt) bool { return a.at.Before(since) }), nil
}
