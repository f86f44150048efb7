// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
)

// FuzzRequest lets whoever may open the control socket send anything: it is
// answered with a status, events or one result, and never reaches the node with
// names that are too long or a body that is not understood whole.
func FuzzRequest(f *testing.F) {
	for _, text := range []string{
		"GET /api/v1/status HTTP/1.1\r\nHost: twinbd\r\n\r\n",
		"GET /api/v1/events?since=3 HTTP/1.1\r\nHost: twinbd\r\n\r\n",
		"GET /api/v1/events?since=-1&follow=perhaps HTTP/1.1\r\nHost: twinbd\r\n\r\n",
		"POST /api/v1/db/prim HTTP/1.1\r\nHost: twinbd\r\nContent-Length: 2\r\n\r\n{}",
		"POST /api/v1/db/resolve HTTP/1.1\r\nHost: twinbd\r\nContent-Length: 42\r\n\r\n{\"volume\":\"data\",\"args\":{\"keep\":\"alpha\"}} ",
		"POST /api/v1/-/x HTTP/1.1\r\nHost: twinbd\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"v\r\n0\r\n\r\n",
		"DELETE /../api HTTP/1.0\r\n\r\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
		if err != nil || r.FormValue("follow") != "" && r.Method == http.MethodGet { // followers wait for events
			return
		}
		b := &backend{act: func(_ context.Context, a Action, progress func(Progress)) error {
			if len(a.Verb) > maxName || len(a.Service) > maxName || len(a.Volume) > maxName || a.Service == NodeWide {
				t.Errorf("the node was asked %+v", a)
			}
			progress(Progress{Text: a.Verb})
			return ErrUnknownVerb
		}}
		w := httptest.NewRecorder()
		NewHandler(b, NewEvents(10), func(*http.Request) string { return "fuzz" }).ServeHTTP(w, r)
		if w.Code == 0 || w.Code >= 500 && w.Code != http.StatusNotImplemented {
			t.Errorf("answered with %d: %s", w.Code, w.Body)
		}
		if kind := w.Header().Get("Content-Type"); kind != "application/json" && kind != "application/x-ndjson" {
			return // a redirect of the multiplexer
		}
		for lines := json.NewDecoder(w.Body); lines.More(); {
			var line map[string]any
			if err := lines.Decode(&line); err != nil {
				t.Fatalf("the answer is no JSON: %v", err)
			}
		}
	})
}
