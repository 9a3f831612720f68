package boot

import (
	"context"
	"time"

	"seaway.dev/seaway/lab/machine"
)

// controlPlane starts etcd, the API server and, when that answers, the rest.
func controlPlane(ctx context.Context, s machine.Spec, sup *supervisor) error {
	sup.keep(ctx, etcd())
	sup.keep(ctx, apiServer(s))
	go func() {
		awaitAPI(ctx, "https://127.0.0.1:6443", "admin", 10*time.Minute, sup.log)
		sup.keep(ctx, controllerManager(s))
		sup.keep(ctx, scheduler())
	}()
	return nil
}

func bin(name string, args ...string) daemon {
	return daemon{name: name, argv: append([]string{binDir + "/" + name}, args...)}
}

func etcd() daemon {
	// The disk is not a thing to wait for in a lab: --unsafe-no-fsync.
	return bin("etcd", "--name=e", "--data-dir=/var/lib/etcd/data", "--unsafe-no-fsync",
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=e=http://127.0.0.1:2380", "--log-level=warn", "--auto-compaction-retention=1h")
}

func apiServer(s machine.Spec) daemon {
	const k = kubernetesDir
	return bin("kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--advertise-address="+s.Machine.IP.String(), "--secure-port=6443",
		"--service-cluster-ip-range="+s.Cluster.ServiceCIDR.String(), "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true", "--client-ca-file="+k+"/ca.crt", "--tls-cert-file="+k+"/apiserver.crt", "--tls-private-key-file="+k+"/apiserver.key",
		"--kubelet-certificate-authority="+k+"/ca.crt", "--kubelet-client-certificate="+k+"/apiserver-kubelet.crt",
		"--kubelet-client-key="+k+"/apiserver-kubelet.key", "--kubelet-preferred-address-types=InternalIP",
		"--service-account-key-file="+k+"/sa.pub", "--service-account-signing-key-file="+k+"/sa.key",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--proxy-client-cert-file="+k+"/front-proxy.crt", "--proxy-client-key-file="+k+"/front-proxy.key",
		"--requestheader-client-ca-file="+k+"/front-proxy-ca.crt", "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--enable-aggregator-routing=true", "--profiling=false",
		"--event-ttl=1h", "--endpoint-reconciler-type=lease")
}

func controllerManager(s machine.Spec) daemon {
	const k = kubernetesDir
	conf := k + "/kcm.kubeconfig"
	return bin("kube-controller-manager", "--kubeconfig="+conf, "--authentication-kubeconfig="+conf, "--authorization-kubeconfig="+conf,
		"--leader-elect=false", "--cluster-cidr="+s.Cluster.PodCIDR.String(), "--service-cluster-ip-range="+s.Cluster.ServiceCIDR.String(),
		"--allocate-node-cidrs=false", "--use-service-account-credentials=true", "--service-account-private-key-file="+k+"/sa.key",
		"--root-ca-file="+k+"/ca.crt", "--cluster-signing-cert-file="+k+"/ca.crt", "--cluster-signing-key-file="+k+"/ca.key",
		"--profiling=false", "--node-monitor-period=2s", "--node-monitor-grace-period=16s", "--kube-api-qps=200", "--kube-api-burst=400")
}

func scheduler() daemon {
	const conf = kubernetesDir + "/scheduler.kubeconfig"
	return bin("kube-scheduler", "--kubeconfig="+conf, "--authentication-kubeconfig="+conf, "--authorization-kubeconfig="+conf,
		"--leader-elect=false", "--profiling=false", "--kube-api-qps=200", "--kube-api-burst=400")
}
