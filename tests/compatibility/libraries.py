"""Real work with libraries that have much native code. Each function runs in a worker and answers plain values.

The answers are checked in test_libraries.py; test_rules_in_use.py runs the same functions with their calls recorded.
"""

from __future__ import annotations

from fxcell import zef_function


@zef_function
def use_numpy():
    import numpy as np

    generator = np.random.default_rng(7)
    matrix = generator.standard_normal((120, 120))
    square = matrix @ matrix.T + 120 * np.eye(120)
    spectrum = np.abs(np.fft.rfft(np.sin(np.linspace(0, 2 * np.pi * 9, 512, endpoint=False))))
    words = np.array(["pear", "fig", "apple"])
    return (
        bool(np.allclose(np.linalg.solve(square, square @ np.ones(120)), 1)),
        int(spectrum.argmax()),
        float(np.einsum("ii->", square).round(6) == np.trace(square).round(6)),
        np.sort(words).tolist(),
        str(np.datetime64("2024-02-28") + np.timedelta64(2, "D")),
    )


@zef_function
def use_scipy():
    import numpy as np
    from scipy import fft, integrate, interpolate, linalg, optimize, signal, sparse, stats
    from scipy.sparse.linalg import spsolve

    minimum = optimize.minimize(optimize.rosen, [1.3, 0.7, 0.8], method="BFGS", options={"gtol": 1e-8})
    area, _ = integrate.quad(np.sin, 0, np.pi)
    curve = integrate.solve_ivp(lambda t, y: -y, (0, 1), [1.0], rtol=1e-8)
    laplace = sparse.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(50, 50), format="csc")
    line = stats.linregress([0, 1, 2, 3], [1, 3, 5, 7])
    spline = interpolate.CubicSpline(range(6), [x**3 for x in range(6)])
    b, a = signal.butter(3, 0.2)
    return (
        minimum.x.round(4).tolist(),
        round(area, 9),
        round(float(curve.y[0, -1]), 5),
        bool(np.allclose(laplace @ spsolve(laplace, np.ones(50)), 1)),
        (round(float(line.slope), 9), round(float(line.intercept), 9)),
        round(float(spline(2.5)), 6),
        round(float(signal.filtfilt(b, a, np.ones(64))[32]), 6),
        bool(np.allclose(linalg.expm(np.zeros((3, 3))), np.eye(3))),
        bool(np.allclose(fft.idct(fft.dct(np.arange(8.0))), np.arange(8.0))),
        round(float(stats.norm.cdf(1.96)), 3),
    )


@zef_function
def use_pandas():
    import io

    import pandas as pd

    table = pd.read_csv(io.StringIO("day,shop,sold\n2024-01-30,a,3\n2024-01-31,b,5\n2024-02-01,a,7\n2024-02-02,b,\n"),
                        parse_dates=["day"])  # fmt: skip
    monthly = table.groupby([table.day.dt.month, "shop"]).sold.sum()
    wide = table.pivot_table(index="shop", values="sold", aggfunc="mean")
    joined = table.merge(pd.DataFrame({"shop": ["a", "b"], "town": ["Aa", "Bb"]}), on="shop")
    return (
        monthly.to_dict(),
        wide.sold.to_dict(),
        joined.town.tolist(),
        table.sold.isna().sum().item(),
        table.set_index("day").sold.resample("MS").sum().tolist(),
        pd.Timestamp("2024-03-31 02:30", tz="UTC").isoformat(),
        table.to_json(orient="records", date_format="iso").count("sold"),
    )


@zef_function
def use_pillow():
    import io

    from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageStat

    picture = Image.new("RGB", (160, 120), "navy")
    ImageDraw.Draw(picture).polygon([(10, 110), (80, 10), (150, 110)], fill="orange")
    sizes = {}
    for form in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        memory = io.BytesIO()
        picture.save(memory, form)
        again = Image.open(io.BytesIO(memory.getvalue()))
        again.load()
        sizes[form] = (again.format, again.size)
    lossless = io.BytesIO()
    picture.save(lossless, "PNG")
    same = ImageChops.difference(Image.open(lossless).convert("RGB"), picture).getbbox() is None
    small = picture.filter(ImageFilter.GaussianBlur(2)).rotate(90, expand=True).resize((60, 80), Image.Resampling.LANCZOS)
    return sizes, same, small.size, ImageStat.Stat(small.convert("L")).mean[0] > 20, small.getpixel((30, 40))[0] > 200


@zef_function
def use_lxml():
    from lxml import etree, html

    tree = etree.fromstring(b"<a xmlns:p='urn:u'><p:b n='1'>x</p:b><c/><c>y &amp; z</c></a>")
    style = etree.XSLT(etree.XML(
        b"<xsl:stylesheet version='1.0' xmlns:xsl='http://www.w3.org/1999/XSL/Transform'><xsl:output method='text'/>"
        b"<xsl:template match='/'><xsl:value-of select='count(//c)'/></xsl:template></xsl:stylesheet>"))  # fmt: skip
    schema = etree.RelaxNG(
        etree.XML("<element name='a' xmlns='http://relaxng.org/ns/structure/1.0'><text/></element>")
    )
    try:
        etree.fromstring(b"<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><a>&e;</a>")
        entity = "accepted"
    except etree.XMLSyntaxError:
        entity = "refused"
    page = html.fromstring("<p>one<br>two<a href='/x'>link</a>")
    return (
        [node.text for node in tree.xpath("//c")],
        str(tree.xpath("string(//p:b/@n)", namespaces={"p": "urn:u"})),
        str(style(tree)),
        schema.validate(etree.XML("<a>text</a>")),
        entity,
        [str(link) for _, _, link, _ in page.iterlinks()],
        etree.tostring(tree, method="c14n")[:2],
    )


@zef_function
def use_cryptography():
    import datetime

    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.fernet import Fernet
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
    from cryptography.x509.oid import NameOID

    box = Fernet(Fernet.generate_key())
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    signature = key.sign(b"text", padding.PKCS1v15(), hashes.SHA256())
    try:
        key.public_key().verify(signature, b"other", padding.PKCS1v15(), hashes.SHA256())
        forged = "accepted"
    except InvalidSignature:
        forged = "refused"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "worker")])
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    curve = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(curve.public_key()).serial_number(5)
    paper = builder.not_valid_before(start).not_valid_after(start + datetime.timedelta(days=9)).sign(curve, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                            serialization.BestAvailableEncryption(b"word"))  # fmt: skip
    again = serialization.load_pem_private_key(pem, b"word")
    edwards = ed25519.Ed25519PrivateKey.generate()
    edwards.public_key().verify(edwards.sign(b"text"), b"text")
    return (
        box.decrypt(box.encrypt(b"text")),
        forged,
        paper.serial_number,
        again.private_numbers() == key.private_numbers(),
        [type(cipher(k)).__name__ for cipher, k in ((AESGCM, b"k" * 32), (ChaCha20Poly1305, b"k" * 32))],
        AESGCM(b"k" * 16).decrypt(b"n" * 12, AESGCM(b"k" * 16).encrypt(b"n" * 12, b"text", b"more"), b"more"),
        PBKDF2HMAC(hashes.SHA256(), 16, b"salt", 1000).derive(b"word").hex()[:8],
    )


@zef_function
def use_sklearn():
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.datasets import load_iris, make_blobs
    from sklearn.decomposition import PCA
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score, train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    points, kinds = load_iris(return_X_y=True)
    known, new, known_kinds, new_kinds = train_test_split(points, kinds, random_state=0)
    line = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(known, known_kinds)
    forest = RandomForestClassifier(n_estimators=20, random_state=0, n_jobs=2).fit(known, known_kinds)
    boosted = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(known, known_kinds)
    blobs, _ = make_blobs(150, centers=3, random_state=1, cluster_std=0.4)
    clusters = KMeans(3, n_init=2, random_state=0).fit_predict(blobs)
    return (
        bool(line.score(new, new_kinds) > 0.9),
        bool(forest.score(new, new_kinds) > 0.9),
        bool(boosted.score(new, new_kinds) > 0.85),
        sorted(np.bincount(clusters).tolist()),
        bool(PCA(2).fit(points).explained_variance_ratio_.sum() > 0.95),
        bool(cross_val_score(line, points, kinds, cv=3).mean() > 0.9),
    )


@zef_function
def use_regex():
    import regex

    return (
        regex.findall(r"\p{Lu}\p{Ll}+", "Ähre, Öl und Übel"),
        regex.fullmatch(r"(?:cats|dogs){e<=1}", "cat").group(),
        regex.sub(r"(?r)\d{3}(?=\d)", ".", "1234567"),
        [m.captures(1) for m in regex.finditer(r"(?:(\w)\s?)+", "a b c")],
        regex.match(r"(?P<x>\((?:[^()]|(?&x))*\))", "(a(b)c)d").group(),
    )


ALL = (use_numpy, use_scipy, use_pandas, use_pillow, use_lxml, use_cryptography, use_sklearn, use_regex)
