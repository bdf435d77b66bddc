// proxyrules says which proxy Go's programs ask a URL through.
//
// Each line of its input is one question, in JSON: {"env": {"HTTP_PROXY": "…", …}, "url": "…"}. Each line of its
// output is the answer, in the same order: {"proxy": "…"}, with "" for none, or {"error": "…"}.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"os"

	"golang.org/x/net/http/httpproxy"
)

type question struct {
	Env map[string]string `json:"env"`
	URL string            `json:"url"`
}

type answer struct {
	Proxy string `json:"proxy"`
	Error string `json:"error,omitempty"`
}

func ask(q question) answer {
	os.Clearenv()
	for name, value := range q.Env {
		os.Setenv(name, value)
	}
	target, err := url.Parse(q.URL)
	if err != nil {
		return answer{Error: err.Error()}
	}
	proxy, err := httpproxy.FromEnvironment().ProxyFunc()(target)
	if err != nil {
		return answer{Error: err.Error()}
	}
	if proxy == nil {
		return answer{}
	}
	return answer{Proxy: proxy.String()}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if err := out.Encode(ask(q)); err != nil {
			os.Exit(1)
		}
	}
}
