module seaway.dev/seaway/lab

go 1.26

require (
	github.com/spf13/cobra v1.9.1
	github.com/vishvananda/netlink v1.3.1
	golang.org/x/sys v0.31.0
	sigs.k8s.io/yaml v1.6.0
)

require (
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/spf13/pflag v1.0.6 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
	go.yaml.in/yaml/v2 v2.4.2 // indirect
)
