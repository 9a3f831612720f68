package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"seaway.dev/seaway/datapath/wg"
	"seaway.dev/seaway/fleet"
)

// bareConf is the configuration of a bare WireGuard device.
type bareConf struct {
	Private  []byte
	Peer     fleet.Key
	Endpoint string
	Port     uint16
}

// wireguardRole is what wireguard-go's own program does: a device with all defaults, in the namespace where it is.
func wireguardRole(ctx context.Context, conf string) error {
	var c bareConf
	if err := json.Unmarshal([]byte(conf), &c); err != nil {
		return err
	}
	key, err := wg.PrivateKeyFrom(c.Private)
	if err != nil {
		return err
	}
	t, err := tun.CreateTUN("wg0", device.DefaultMTU)
	if err != nil {
		return err
	}
	d := device.NewDevice(t, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, "bare "))
	defer d.Close()
	err = d.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\npublic_key=%s\nendpoint=%s\nallowed_ip=0.0.0.0/0\n",
		hex.EncodeToString(key.Bytes()), c.Port, hex.EncodeToString(c.Peer[:]), c.Endpoint))
	if err != nil {
		return err
	}
	if err := d.Up(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// profiled starts a CPU profile, if a directory is given, and returns what ends it.
func profiled(dir, name string) func() {
	if dir == "" {
		return func() {}
	}
	f, err := os.Create(filepath.Join(dir, "cpu"+name+".prof"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "profile:", err)
		return func() {}
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		fmt.Fprintln(os.Stderr, "profile:", err)
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}
}
