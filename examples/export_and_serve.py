"""A trained learner as one file, and a small HTTP server that predicts with it, without data and the model's source."""
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from sklearn.datasets import load_digits

from minifast.vision import *


def server(predict, port=0):
    """POST a list of pictures, each 64 numbers from 0 to 16: the answer is a list of [class, probability]."""
    class Predict(BaseHTTPRequestHandler):
        def do_POST(self):
            pictures = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = predict(np.array(pictures, np.float32).reshape(-1, 1, 8, 8) / 16)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())
    return HTTPServer(("127.0.0.1", port), Predict)


def predictor(file):
    learn = load_learner(file)

    def predict(pictures):
        probabilities, _ = learn.get_preds(dl=pictures)
        best = probabilities.max(1)
        return [[learn.data.classes[i], p] for i, p in zip(best.indices, best.values.tolist(), strict=True)]
    return predict


def train(file="digits.mf", epochs=5):
    torch.manual_seed(0)
    digits = load_digits()
    data = DataBunch.from_arrays(digits.images[:, None] / 16, digits.target, bs=64, seed=0, classes=[*"0123456789"])
    model = nn.Sequential(*simple_cnn((1, 16, 32, 64), strides=(1, 2, 2), bn=True), nn.Linear(64, 10))
    learn = Learner(data, model, metrics=[accuracy])
    learn.fit_one_cycle(epochs, 1e-2)
    return learn, learn.export(file)


def main(port=0):
    learn, file = train()
    with server(predictor(file), port) as httpd:
        print(f"{file} has {file.stat().st_size:,} bytes; listening on http://127.0.0.1:{httpd.server_port}")
        if port:        # else it was only a look
            httpd.serve_forever()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
