package main

import (
	"errors"
	"fmt"
	"net/url"

	"go.etcd.io/etcd/server/v3/embed"
)

// startEtcd runs etcd inside this process, with its data in dir, and returns
// when it serves on 127.0.0.1:2379. It does not fsync: the lab's data may die
// with the machine.
func startEtcd(dir string) error {
	if dir == "" {
		return errors.New("apiserver-with-etcd: KUBELAB_ETCD_DIR is not set")
	}
	client := url.URL{Scheme: "http", Host: "127.0.0.1:2379"}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	cfg := embed.NewConfig()
	cfg.Dir = dir
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.UnsafeNoFsync = true
	cfg.LogLevel = "warn"
	// Left at zero by NewConfig, which would log every request.
	cfg.WarningUnaryRequestDuration = embed.DefaultWarningUnaryRequestDuration
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("apiserver-with-etcd: start etcd in %s: %w", dir, err)
	}
	select {
	case <-server.Server.ReadyNotify():
		return nil
	case err := <-server.Err():
		return fmt.Errorf("apiserver-with-etcd: etcd in %s: %w", dir, err)
	}
}
