package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"github.com/spf13/cobra"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// policyAgent is kube-router with `--run-firewall` and nothing else: it turns NetworkPolicies into the node's iptables and ipset rules.
// Its own command would bring routing and load balancing, and a multiple of what has to be compiled.
func policyAgent() *cobra.Command {
	config := options.NewKubeRouterConfig()
	command := &cobra.Command{
		Use:          "kube-router",
		SilenceUsage: true,
		RunE:         func(*cobra.Command, []string) error { return enforcePolicies(config) },
	}
	config.AddFlags(command.Flags())
	return command
}

func enforcePolicies(config *options.KubeRouterConfig) error {
	connection, err := clientcmd.BuildConfigFromFlags(config.Master, config.Kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(connection)
	if err != nil {
		return err
	}
	stop := genericapiserver.SetupSignalHandler()
	factory := informers.NewSharedInformerFactory(client, 0)
	pods := factory.Core().V1().Pods().Informer()
	namespaces := factory.Core().V1().Namespaces().Informer()
	policies := factory.Networking().V1().NetworkPolicies().Informer()
	factory.Start(stop)
	for kind, isSynced := range factory.WaitForCacheSync(stop) {
		if !isSynced {
			return fmt.Errorf("%v could not be listed", kind)
		}
	}
	iptables, ipsets, err := netpol.NewIPTablesHandlers(config)
	if err != nil {
		return err
	}
	var ipsetLock sync.Mutex
	var agent *netpol.NetworkPolicyController
	for {
		agent, err = netpol.NewNetworkPolicyController(client, config, pods, policies, namespaces, &ipsetLock, iptables, ipsets)
		if err == nil {
			break
		}
		// It asks for its own node, which the kubelet may not have registered yet.
		klog.Infof("waiting for the node: %v", err)
		select {
		case <-stop:
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
	for informer, handler := range map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		pods: agent.PodEventHandler, namespaces: agent.NamespaceEventHandler, policies: agent.NetworkPolicyEventHandler,
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	// Every pass reports that it is alive, and blocks where nobody listens.
	beats := make(chan *healthcheck.ControllerHeartbeat)
	go func() {
		for range beats {
		}
	}()
	var running sync.WaitGroup
	running.Add(1)
	agent.Run(beats, stop, &running)
	running.Wait()
	return nil
}
