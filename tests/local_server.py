"""A web server on this machine whose answers a test gives."""

import http.server
import threading


class Server:
    """A local web server whose answers are given one by one.

    An answer is bytes, a status code, ("cut", bytes) for the first half of what is promised, or a function
    that is given the request's handler. ``asked`` has the paths, ``headers`` what came with them.
    """

    def __init__(self):
        self.answers, self.asked, self.headers = {}, [], []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                outer.headers.append(dict(self.headers))
                queue = outer.answers.get(self.path, [404])
                answer = queue.pop(0) if len(queue) > 1 else queue[0]
                if callable(answer):
                    answer(self)
                    return
                if isinstance(answer, int):
                    self.send_error(answer)
                    return
                cut = isinstance(answer, tuple)
                content = answer[1] if cut else answer
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if cut else content)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
