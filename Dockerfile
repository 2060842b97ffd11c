# The endpoints of `metanlp serve --api` with the learner that comes with the package:
#     python -m build && docker build --tag metanlp . && docker run --publish 127.0.0.1:7860:7860 metanlp
# There is no password. torch comes with CUDA unless --build-arg PIP_EXTRA_INDEX_URL=… gives the index of its CPU builds.
FROM python:3.11-slim
ARG PIP_EXTRA_INDEX_URL
COPY .ci/requirements.txt dist/metanlp-*.whl /tmp/
RUN pip install --no-cache-dir --constraint /tmp/requirements.txt "$(ls /tmp/metanlp-*.whl)[minilm,serve]" && \
    useradd --create-home metanlp
USER metanlp
EXPOSE 7860
HEALTHCHECK CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/healthz')"]
CMD ["metanlp", "serve", "--api", "--host", "0.0.0.0"]
