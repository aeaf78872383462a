// The ingress controller of the test cluster: skipper's Kubernetes client, routing and proxy.
// Its own command would bring policy engines, tracers and caches, and a multiple of what has to be compiled.
// WebSockets are passed on; answers are written on as they arrive, so event streams are not held back.
package main

import (
	"crypto/tls"
	"log"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/zalando/skipper/dataclients/kubernetes"
	"github.com/zalando/skipper/filters"
	"github.com/zalando/skipper/loadbalancer"
	skippernet "github.com/zalando/skipper/net"
	"github.com/zalando/skipper/predicates/primitive"
	"github.com/zalando/skipper/predicates/traffic"
	"github.com/zalando/skipper/proxy"
	"github.com/zalando/skipper/routing"
	"github.com/zalando/skipper/secrets/certregistry"
)

const (
	// How long a new Ingress or pod may stay unknown; each look is five short lists.
	pollInterval = 2 * time.Second
	// How long a request may take to name what it wants.
	headerTimeout = 10 * time.Second
)

func main() {
	logrus.SetLevel(logrus.WarnLevel)
	certificates := certregistry.NewCertRegistry()
	client, err := kubernetes.New(kubernetes.Options{
		KubernetesInCluster:            true,
		KubernetesEnableEndpointslices: true,
		PathMode:                       kubernetes.PathPrefix,
		CertificateRegistry:            certificates,
	})
	if err != nil {
		log.Fatalf("the API server cannot be reached: %v", err)
	}
	endpoints := routing.NewEndpointRegistry(routing.RegistryOptions{})
	defer endpoints.Close()
	routes := routing.New(routing.Options{
		FilterRegistry:  filters.Registry{},
		Predicates:      []routing.PredicateSpec{traffic.New(), traffic.NewSegment(), primitive.NewTrue(), primitive.NewFalse()},
		MatchingOptions: routing.IgnoreTrailingSlash,
		DataClients:     []routing.DataClient{client},
		PollTimeout:     pollInterval,
		PostProcessors:  []routing.PostProcessor{loadbalancer.NewAlgorithmProvider(), endpoints},
		SignalFirstLoad: true,
		SuppressLogs:    true,
	})
	defer routes.Close()
	<-routes.FirstLoad()
	proxied := proxy.WithParams(proxy.Params{
		Routing:             routes,
		EndpointRegistry:    endpoints,
		ExperimentalUpgrade: true,
		Flags:               proxy.PreserveHost,
		AccessLogDisabled:   true,
	})
	defer proxied.Close()
	go serve(&http.Server{
		Addr:      ":8443",
		Handler:   forwarded(proxied, "443", "https"),
		TLSConfig: &tls.Config{GetCertificate: certificates.GetCertFromHello},
	})
	// Answers once the first routes are known.
	go serve(&http.Server{Addr: ":8081", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})})
	serve(&http.Server{Addr: ":8080", Handler: forwarded(proxied, "80", "http")})
}

// forwarded tells backends who asked, and how.
func forwarded(next http.Handler, port, scheme string) http.Handler {
	headers := skippernet.ForwardedHeaders{For: true, Host: true, Port: port, Proto: scheme}
	return &skippernet.ForwardedHeadersHandler{Headers: headers, Handler: next}
}

func serve(server *http.Server) {
	server.ReadHeaderTimeout = headerTimeout
	if server.TLSConfig != nil {
		log.Fatal(server.ListenAndServeTLS("", ""))
	}
	log.Fatal(server.ListenAndServe())
}
