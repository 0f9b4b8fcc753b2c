# smx serve without torch. docker build -t smx-serve . && docker run --rm -p 8080:8080 -v "$PWD/models:/models:ro" smx-serve
# tests/test_docker.py runs these steps in a clean environment.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:${PYTHON}-slim
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt "$(ls /wheels/*.whl)[serve]" \
    && rm -r /wheels /tmp/constraints.txt \
    && useradd --system --uid 10001 --no-create-home smx
USER 10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/v2/health/ready', timeout=2)"]
# Options given to docker run follow; of two --port the last one counts. HEALTHCHECK knows port 8080 without TLS.
ENTRYPOINT ["smx", "serve", "--host", "0.0.0.0", "--port", "8080"]
CMD ["/models"]
